"""Samples as training reads them: media-text pairs of a release, or instruction records with the media they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mmdata.documents import DOCUMENT, MARKER
from training.data.augment import SeededVariation, caption_variants, generated_caption, own_columns, variation_of
from training.data.caption_mix import CaptionMix
from training.data.conversations import Conversation, parse_member_path, parse_record, with_fewer_frames
from training.data.media_tensors import (
    EncodedMedia,
    Media,
    MediaSpec,
    decode_data_uri,
    encoded_media,
    encoded_picture,
    encoded_sound,
)
from training.data.records import Records
from training.data.sample_index import MEDIA, row_uid
from training.data.sample_reader import BadSample, SampleReader
from training.data.text_codec import MEDIA_PLACEHOLDER, Turn, without_placeholders


@dataclass(frozen=True, slots=True)
class Example:
    """A sample that was read: its text, and its media in the order in which the text refers to them.

    Args:
        is_document: the one turn is the text of a document, with MEDIA_PLACEHOLDER where each picture stands. There
            may be fewer pictures than that: of a long document only the first ones are read.
    """

    uid: str
    turns: list[Turn]
    media: Media
    is_document: bool = False


class Source(Protocol):
    """Samples that a batch reader reads, by index."""

    def __len__(self) -> int: ...

    def tokens(self, indices: np.ndarray, passes: np.ndarray | int = 0) -> np.ndarray:
        """Estimated tokens of the text that is read in a pass over the samples: int64 N."""
        ...

    def media(self, indices: np.ndarray) -> np.ndarray:
        """Pictures (or frames, at most) and sounds of each sample: int64 N,2."""
        ...

    def expect(self, indices: Sequence[int]) -> None:
        """Say which samples are read next, in order: an object store is then asked for many at once."""
        ...

    def read(self, index: int, pass_number: int = 0) -> Example:
        """A sample as a pass reads it. Raises BadSample if it cannot be decoded, DataError if its file is broken."""
        ...

    def encoded_media(self, index: int) -> EncodedMedia:
        """A sample's media before they are decoded. Raises as `read`."""
        ...

    def turns(self, index: int, pass_number: int = 0) -> list[Turn]:
        """A sample's text, without decoding its media. Raises as `read`."""
        ...

    def texts(self, index: int) -> list[str]:
        """All texts that a sample is read with, over the passes. Raises as `read`."""
        ...


class Pairs:
    """A release's media-text pairs, and its documents if `spec.document_pictures` says so.

    Args:
        samples: rows of `sample_index.SAMPLE`; those without media that the towers take are left out.
        mix: which samples are read with their generated caption; None: none.
    """

    def __init__(
        self, samples: np.ndarray, reader: SampleReader, spec: MediaSpec, mix: CaptionMix | None = None
    ) -> None:
        self._samples, self._reader, self._spec, self._mix = samples, reader, spec, mix
        left_out = {kind for kind, n in (("audio", spec.audio_samples), (DOCUMENT, spec.document_pictures)) if not n}
        usable = sum(1 << bit for bit, kind in enumerate(MEDIA) if kind not in left_out)
        has_media = samples["media"] & np.uint8(usable) != 0
        self._rows = None if bool(has_media.all()) else np.flatnonzero(has_media)

    def __len__(self) -> int:
        return len(self._samples) if self._rows is None else len(self._rows)

    @property
    def left_out(self) -> dict[str, int]:
        """How many samples are left out, by what they hold: `document`, `audio` or `text`; without those of none."""
        if self._rows is None:
            return {}
        media = np.delete(self._samples["media"], self._rows)
        is_document = media & np.uint8(1 << MEDIA.index(DOCUMENT)) != 0
        counts = {
            "document": is_document.sum(),
            "audio": (~is_document & (media != 0)).sum(),
            "text": (media == 0).sum(),
        }
        return {kind: int(count) for kind, count in counts.items() if count}

    def row(self, index: int) -> np.void:
        """The sample's row of `sample_index.SAMPLE`."""
        return self._samples[index if self._rows is None else self._rows[index]]

    def tokens(self, indices: np.ndarray, passes: np.ndarray | int = 0) -> np.ndarray:
        """Estimated tokens of the text that is read in a pass over the samples: int64 N."""
        rows = indices if self._rows is None else self._rows[indices]
        tokens = self._samples["tokens"][rows].astype(np.int64)
        if self._mix is None:
            return tokens
        return np.where(self._mix.draws_generated(self._samples, rows, passes), self._mix.tokens[rows], tokens)

    def media(self, indices: np.ndarray) -> np.ndarray:
        """Pictures (or frames, at most) and sounds of each sample: int64 N,2."""
        rows = indices if self._rows is None else self._rows[indices]
        bits = self._samples["media"][rows]
        pictures = (bits & 1) + ((bits >> 1) & 1) * self._spec.frames
        pictures = pictures + np.minimum(self._samples["pictures"][rows], self._spec.document_pictures)
        return np.stack([pictures, ((bits >> 2) & 1) * bool(self._spec.audio_samples)], 1).astype(np.int64)

    def expect(self, indices: Sequence[int]) -> None:
        """Say which samples are read next, in order: an object store is then asked for many at once."""
        at = np.asarray(indices, np.int64)
        self._reader.expect(self._samples[at if self._rows is None else self._rows[at]])

    def read(self, index: int, pass_number: int = 0) -> Example:
        """Raises BadSample if the sample cannot be decoded, DataError if the shard is not this release's."""
        row = self.row(index)
        members = self._reader.members(row)
        variation = self._variation(row, members)
        is_document = bool(row["pictures"])
        crop = None if self._spec.crops is None else self._spec.crops.of(index, pass_number)
        encoded = encoded_media(members, self._spec, variation, is_document=is_document, crop=crop)
        media = encoded.read(self._spec.features)
        return Example(row_uid(row), [self._text(index, pass_number, members, variation)], media, is_document)

    def encoded_media(self, index: int) -> EncodedMedia:
        """A sample's media before they are decoded. Raises DataError as `read`."""
        row = self.row(index)
        members = self._reader.members(row)
        media = encoded_media(members, self._spec, self._variation(row, members), is_document=bool(row["pictures"]))
        return replace(media, release_id=self._reader.release_id)

    def own_columns(self, index: int) -> dict[str, Any]:
        """The source's own columns of a sample. Raises as `read`."""
        return own_columns(self._reader.members(self.row(index)))

    def texts(self, index: int) -> list[str]:
        """All texts that a sample is read with, over the passes. Raises as `read`."""
        row = self.row(index)
        members = self._reader.members(row)
        texts = [_turn(row, members, self._variation(row, members)).text]
        return texts if self._mix is None else [*texts, without_placeholders(generated_caption(members))]

    def turns(self, index: int, pass_number: int = 0) -> list[Turn]:
        """A sample's text, without decoding its media. Raises as `read`."""
        row = self.row(index)
        members = self._reader.members(row)
        return [self._text(index, pass_number, members, self._variation(row, members))]

    def _text(
        self, index: int, pass_number: int, members: Mapping[str, bytes], variation: SeededVariation | None
    ) -> Turn:
        """The text of a sample in a pass: its caption, varied in further copies, or its generated caption."""
        rows = np.array([index if self._rows is None else self._rows[index]])
        if self._mix is not None and self._mix.draws_generated(self._samples, rows, pass_number)[0]:
            return Turn("assistant", without_placeholders(generated_caption(members)))
        return _turn(self.row(index), members, variation)

    def _variation(self, row: np.void, members: Mapping[str, bytes]) -> SeededVariation | None:
        return variation_of(members) if self._spec.augment and row["copy"] else None


def _turn(row: np.void, members: Mapping[str, bytes], variation: SeededVariation | None) -> Turn:
    """A sample's caption; a document's text, with MEDIA_PLACEHOLDER in place of its markers."""
    try:
        caption = members["txt"].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise BadSample(f"no caption ({error})") from None
    if row["pictures"]:
        return Turn("assistant", without_placeholders(caption).replace(MARKER, MEDIA_PLACEHOLDER))
    if variation is not None:
        caption = variation.caption(caption, caption_variants(members))
    return Turn("assistant", without_placeholders(caption))


class Instructions:
    """A release's instruction records of one form and split."""

    def __init__(self, records: Records, samples: np.ndarray, reader: SampleReader, spec: MediaSpec) -> None:
        self._records, self._samples, self._reader, self._spec = records, samples, reader, spec

    def __len__(self) -> int:
        return len(self._records.index)

    def tokens(self, indices: np.ndarray, passes: np.ndarray | int = 0) -> np.ndarray:
        """Estimated tokens of text, the same in every pass: int64 N."""
        return self._records.index["tokens"][indices].astype(np.int64)

    def media(self, indices: np.ndarray) -> np.ndarray:
        """Pictures (or frames) and sounds of each record: int64 N,2."""
        index = self._records.index
        return np.stack([index["images"][indices], index["sounds"][indices]], 1).astype(np.int64)

    def expect(self, indices: Sequence[int]) -> None:
        """Say which records are read next, in order: an object store is then asked for many at once."""
        self._records.expect(indices)
        rows = [self._records.rows_of(index) for index in indices]
        self._reader.expect(self._samples[np.concatenate([*rows, np.zeros(0, np.int64)])])

    def read(self, index: int, pass_number: int = 0) -> Example:
        """Raises BadSample if a medium cannot be decoded, DataError if the shard is not this release's."""
        record, conversation = self._conversation(index)
        media = self._encoded_media(index, conversation).read(self._spec.features)
        return Example(str(record.get("id", index)), conversation.turns, media)

    def encoded_media(self, index: int) -> EncodedMedia:
        """A record's media before they are decoded. Raises BadSample or DataError as `read`."""
        return self._encoded_media(index, self._conversation(index)[1])

    def _encoded_media(self, index: int, conversation: Conversation) -> EncodedMedia:
        members_by_key = {
            key: self._reader.members(self._samples[row])
            for key, row in zip(conversation.keys, self._records.rows_of(index), strict=True)
        }
        pictures = [encoded_picture(_medium_bytes(path, members_by_key), self._spec) for path in conversation.images]
        sounds = [encoded_sound(_medium_bytes(path, members_by_key), self._spec) for path in conversation.sounds]
        return EncodedMedia(pictures, sounds[0] if sounds else None, release_id=self._reader.release_id)

    def turns(self, index: int, pass_number: int = 0) -> list[Turn]:
        """A record's text, without reading its media."""
        return self._conversation(index)[1].turns

    def texts(self, index: int) -> list[str]:
        """The texts of a record's turns."""
        return [turn.text for turn in self.turns(index)]

    def _conversation(self, index: int) -> tuple[dict[str, Any], Conversation]:
        record = self._records.record(index)
        conversation = parse_record(record)
        assert conversation is not None, "the index holds only records with a text answer"
        return record, with_fewer_frames(conversation, self._records.limits.frames)


def _medium_bytes(path: str, members_by_key: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """The bytes that a path or data URI of a record stands for. Raises BadSample."""
    member = parse_member_path(path)
    if member is None:
        return decode_data_uri(path)
    try:
        return members_by_key[member.key][member.ext]
    except KeyError:
        raise BadSample(f"sample {member.key} has no member {member.ext}") from None
