"""What is read of a sample: a pair of the release, or an instruction record with the samples that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.data.augment import Seeded, other_captions, variation_of
from training.data.conversations import Conversation, member_of
from training.data.records import Records
from training.data.release_index import MEDIA, BadSample, SampleReader, row_uid
from training.data.tensors import Media, MediaSpec, audio, embedded, picture, read_media
from training.data.tokens import Turn, clean

Batch = dict[str, Any]  # examples as tensors: see `training.data.loader`


@dataclass(frozen=True, slots=True)
class Example:
    """What is read of one sample: its words, and its media in the order of their places."""

    uid: str
    turns: list[Turn]
    media: Media


class Pairs:
    """A release's media-text pairs.

    Args:
        samples: rows of `training.data.release_index.SAMPLE`; those without media that the towers take are left out.
    """

    def __init__(self, samples: np.ndarray, reader: SampleReader, spec: MediaSpec) -> None:
        self._samples, self._reader, self._spec = samples, reader, spec
        taken = sum(1 << bit for bit, kind in enumerate(MEDIA) if kind != "audio" or spec.audio_samples)
        has_media = samples["media"] & np.uint8(taken) != 0
        self._rows = None if bool(has_media.all()) else np.flatnonzero(has_media)

    def __len__(self) -> int:
        return len(self._samples) if self._rows is None else len(self._rows)

    def row(self, at: int) -> np.void:
        return self._samples[at if self._rows is None else self._rows[at]]

    def tokens(self, at: np.ndarray) -> np.ndarray:
        """Estimated tokens of text."""
        return self._samples["tokens"][at if self._rows is None else self._rows[at]].astype(np.int64)

    def media(self, at: np.ndarray) -> np.ndarray:
        """Pictures (or frames, at most) and sounds of each: int64 N,2."""
        bits = self._samples["media"][at if self._rows is None else self._rows[at]]
        pictures = (bits & 1) + ((bits >> 1) & 1) * self._spec.frames
        return np.stack([pictures, ((bits >> 2) & 1) * bool(self._spec.audio_samples)], 1).astype(np.int64)

    def read(self, at: int) -> Example:
        """Raises BadSample (undecodable) or DataError (a shard that is not this release's)."""
        row = self.row(at)
        members = self._reader.members(row)
        variation = self._variation(row, members)
        return Example(row_uid(row), [_caption(members, variation)], read_media(members, self._spec, variation))

    def turns(self, at: int) -> list[Turn]:
        """A sample's words alone. Raises as `read`."""
        row = self.row(at)
        members = self._reader.members(row)
        return [_caption(members, self._variation(row, members))]

    def _variation(self, row: np.void, members: Mapping[str, bytes]) -> Seeded | None:
        return variation_of(members) if self._spec.augment and row["copy"] else None


def _caption(members: Mapping[str, bytes], variation: Seeded | None) -> Turn:
    try:
        caption = members["txt"].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise BadSample(f"no caption ({error})") from None
    if variation is not None:
        caption = variation.caption(caption, other_captions(members))
    return Turn("assistant", clean(caption))


class Instructions:
    """A release's instruction records of one form and split."""

    def __init__(self, records: Records, samples: np.ndarray, reader: SampleReader, spec: MediaSpec) -> None:
        self._records, self._samples, self._reader, self._spec = records, samples, reader, spec

    def __len__(self) -> int:
        return len(self._records.index)

    def tokens(self, at: np.ndarray) -> np.ndarray:
        return self._records.index["tokens"][at].astype(np.int64)

    def media(self, at: np.ndarray) -> np.ndarray:
        """Pictures (or frames) and sounds of each: int64 N,2."""
        index = self._records.index
        return np.stack([index["images"][at], index["sounds"][at]], 1).astype(np.int64)

    def read(self, at: int) -> Example:
        """Raises BadSample (undecodable) or DataError (a shard that is not this release's)."""
        record, conversation = self._conversation(at)
        held = {
            key: self._reader.members(self._samples[row])
            for key, row in zip(conversation.keys, self._records.rows_of(at), strict=True)
        }
        pictures = [picture(_bytes_at(path, held), self._spec) for path in conversation.images]
        sounds = [audio(_bytes_at(path, held), self._spec.audio_samples) for path in conversation.sounds]
        media = Media(torch.stack(pictures) if pictures else None, sounds[0] if sounds else None)
        return Example(str(record.get("id", at)), conversation.turns, media)

    def turns(self, at: int) -> list[Turn]:
        """A record's words alone."""
        return self._conversation(at)[1].turns

    def _conversation(self, at: int) -> tuple[dict[str, Any], Conversation]:
        record = self._records.record(at)
        conversation = self._records.conversation(record)
        assert conversation is not None  # the index leaves those out
        return record, conversation


def _bytes_at(path: str, held: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """What a path or data URI of a record leads to. Raises BadSample."""
    found = member_of(path)
    if found is None:
        return embedded(path)
    try:
        return held[found.key][found.ext]
    except KeyError:
        raise BadSample(f"sample {found.key} holds no {found.ext}") from None


def media_count(example: Example) -> tuple[int, int]:
    """Pictures (or frames) and sounds of an example."""
    media = example.media
    return 0 if media.pictures is None else len(media.pictures), int(media.sound is not None)
