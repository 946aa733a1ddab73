"""Batches as a pure function of (release, seed, samples consumed): the same at any world size and worker count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmdata.errors import DataError
from training.augment import Seeded, other_captions, variation_of
from training.conversations import Conversation, member_of
from training.media import Media, MediaSpec, audio, cropped, embedded, picture, read_media
from training.order import Draw, Order, draw, mixed
from training.pack import pack
from training.records import Records
from training.release import MEDIA, BadSample, SampleReader, row_uid
from training.text import IGNORED, Encoded, TextCodec, Turn, clean, cut

Batch = dict[str, Any]
MAX_REPLACEMENTS = 64  # neighbours tried in a bad sample's place before the data counts as broken
CALIBRATION = 256  # samples that tokens per estimated token are measured on


class NothingToRead(DataError):
    """A split that has nothing for a stage."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of each batch this process reads."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class Example:
    """What is read of one sample: its words, and its media in the order of their places."""

    uid: str
    turns: list[Turn]
    media: Media


class Pairs:
    """A release's media-text pairs.

    Args:
        samples: rows of `training.release.SAMPLE`; those without media that the towers take are left out.
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


class Reader(Dataset[Batch]):
    """Reads a step's batch, given the samples consumed before it.

    Args:
        source: where samples come from.
        build: examples, their numbers among the batch's own, and the draw -> tensors.
    """

    def __init__(self, source: Pairs | Instructions, order: Order, batch_size: int, share: Share) -> None:
        if not len(source):
            raise NothingToRead("no samples of this kind and split in the release: nothing to train on")
        self.source, self.order, self.batch_size, self.share = source, order, batch_size, share

    def __getitem__(self, consumed: int) -> Batch:
        found = draw(consumed, self.batch_size, len(self.source))
        return self.batch(found, self.order.at(found.epoch, found.positions))

    def batch(self, found: Draw, chosen: np.ndarray) -> Batch:
        """This process's share of a batch: tensors, and `consumed`, `bad`, `uids`."""
        raise TypeError("a Reader's kind says what its batches are")

    def example(self, at: int) -> tuple[Example, int]:
        """A sample and how many bad ones it stands in for: the next readable one, whoever asks."""
        for tries in range(MAX_REPLACEMENTS):
            try:
                return self.source.read((at + tries) % len(self.source)), tries
            except BadSample as bad:
                last = bad
        raise DataError(f"{MAX_REPLACEMENTS} samples in a row cannot be read; the last: {last}")


class PairReader(Reader):
    """Batches for contrastive training: media, captions' tokens, weights, and which captions are the same.

    Args:
        tokenize: captions -> int64 N,context.
        crop_scale: least share of a picture's area that a crop keeps; 1: pictures stay whole.
    """

    def __init__(
        self,
        source: Pairs,
        order: Order,
        batch_size: int,
        share: Share,
        tokenize: Callable[[list[str]], torch.Tensor],
        crop_scale: float = 1.0,
    ) -> None:
        super().__init__(source, order, batch_size, share)
        self._tokenize, self._crop_scale = tokenize, crop_scale

    def batch(self, found: Draw, chosen: np.ndarray) -> Batch:
        each = self.batch_size // self.share.world
        own = chosen[self.share.rank * each : (self.share.rank + 1) * each]
        read = [self.example(int(at)) for at in own]
        examples = [example for example, _ in read]
        captions = [example.turns[-1].text for example in examples]
        text = self._tokenize(captions + [""] * (each - len(own)))
        group = [_hash(caption) for caption in captions]
        return {
            **stack_media(
                [self._media(one.media, found.epoch, int(at)) for one, at in zip(examples, own, strict=True)]
            ),
            "text": text,
            "weight": torch.tensor([1.0] * len(own) + [0.0] * (each - len(own))),
            "group": torch.tensor(group + [0] * (each - len(own))),
            "uids": [example.uid for example in examples],
            "bad": sum(tries for _, tries in read),
            "read": len(own),
            "consumed": found.consumed,
        }

    def _media(self, media: Media, epoch: int, at: int) -> Media:
        """The media, cropped by a draw from (seed, epoch, sample)."""
        if self._crop_scale == 1.0 or media.pictures is None:
            return media
        return replace(media, pictures=cropped(media.pictures, self._crop_scale, mixed(self.order.seed, epoch, at)))


def stack_media(media: Sequence[Media]) -> Batch:
    """All pictures in one tensor and all sounds in another, with the number of the sample that each belongs to."""
    pictures = [one.pictures for one in media if one.pictures is not None]
    sounds = [one.sound for one in media if one.sound is not None]
    owners = [at for at, one in enumerate(media) if one.pictures is not None for _ in range(len(one.pictures))]
    return {
        "picture": torch.cat(pictures) if pictures else None,
        "picture_of": torch.tensor(owners, dtype=torch.long),
        "sound": torch.stack(sounds) if sounds else None,
        "sound_of": torch.tensor([at for at, one in enumerate(media) if one.sound is not None], dtype=torch.long),
        "is_clip": torch.tensor([one.is_clip for one in media], dtype=torch.bool),
    }


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples become rows of the language model.

    Args:
        picture_tokens, sound_tokens: places that one medium takes in a row; 0: media stand beside the text.
        pack_length: tokens of a row.
        max_text_tokens: a sample's text is cut there.
        packed: several samples a row.
        template: turns are written as a conversation; else as a bare caption.
    """

    picture_tokens: int
    sound_tokens: int
    pack_length: int
    max_text_tokens: int
    packed: bool
    template: bool

    def media_tokens(self, media: np.ndarray) -> np.ndarray:
        return media @ np.array([self.picture_tokens, self.sound_tokens])


class RowReader(Reader):
    """Batches for the language model: rows of tokens, each of one or more samples.

    The batch is the packing window: its rows follow from index lengths alone, and are dealt to the ranks afterwards.
    """

    def __init__(
        self,
        source: Pairs | Instructions,
        order: Order,
        batch_size: int,
        share: Share,
        codec: TextCodec,
        layout: Layout,
    ) -> None:
        super().__init__(source, order, batch_size, share)
        self._codec, self.layout = codec, layout
        self._slope, self._extra = self._calibrated()

    def batch(self, found: Draw, chosen: np.ndarray) -> Batch:
        rows = self.rows(chosen)
        each = -(-len(rows) // self.share.world)
        own = rows[self.share.rank :: self.share.world]
        filled = [self._row([int(chosen[at]) for at in row]) for row in own]
        length = self.layout.pack_length
        if not self.layout.packed:
            longest = max((self._tokens(row) for row in filled), default=1)
            length = min(length, 64 * -(-longest // 64))
        return {**lay_out(filled, each, length, self.layout, self._codec.pad), "consumed": found.consumed}

    def rows(self, chosen: np.ndarray) -> list[list[int]]:
        """The window's rows, each a list of indices into `chosen`."""
        if not self.layout.packed:
            return [[at] for at in range(len(chosen))]
        return pack(self._budgets(chosen).tolist(), self.layout.pack_length)

    def _budgets(self, chosen: np.ndarray) -> np.ndarray:
        text = np.ceil(self.source.tokens(chosen) * self._slope + self._extra).astype(np.int64)
        media = self.layout.media_tokens(self.source.media(chosen))
        return np.minimum(np.minimum(text, self.layout.max_text_tokens) + media, self.layout.pack_length)

    def _calibrated(self) -> tuple[float, float]:
        """Tokens of this tokenizer for each estimated one, and a fixed part with headroom: measured, not guessed."""
        count = min(CALIBRATION, len(self.source))
        chosen = self.order.at(0, np.arange(count))
        estimates = self.source.tokens(chosen).astype(np.float64)
        actual = np.array([self._text_tokens(int(at)) for at in chosen], np.float64)
        estimates, actual = estimates[actual > 0], actual[actual > 0]
        if not len(actual):
            return 1.0, 0.0
        spread = estimates.std()
        slope = max(0.0, float(np.cov(estimates, actual, bias=True)[0, 1] / spread**2)) if spread > 0 else 0.0
        residuals = actual - slope * estimates
        return slope, float(residuals.mean() + 2 * residuals.std())

    def _text_tokens(self, at: int) -> int:
        """Tokens of a sample's text; 0 where it cannot be read."""
        try:
            return len(self.encode(Example("", self.source.turns(at), Media(None, None))).ids)
        except BadSample:
            return 0

    def encode(self, example: Example) -> Encoded:
        """An example's tokens, text cut to `max_text_tokens`."""
        return cut(self._whole(example), self.layout.max_text_tokens)

    def _whole(self, example: Example) -> Encoded:
        if self.layout.template:
            return self._codec.conversation(example.turns)
        return self._codec.caption(example.turns[-1].text, sum(_held(example)))

    def _row(self, chosen: list[int]) -> Row:
        read = [(at, *self.example(at)) for at in chosen]
        # A stand-in with more media than its place was packed for would push out the others: it stays out instead.
        examples = [one for at, one, tries in read if not tries or self._media_tokens(one) <= self._room(at)]
        whole = [self._whole(example) for example in examples]
        encoded = [cut(one, self.layout.max_text_tokens) for one in whole]
        lost = sum(len(one.ids) for one in whole) - sum(len(one.ids) for one in encoded)
        over = self._tokens(Row(examples, encoded, 0, 0)) - self.layout.pack_length
        while over > 0:  # lengths were estimates: the longest text gives way
            longest = max(range(len(encoded)), key=lambda at: (len(encoded[at].ids), at))
            if not encoded[longest].ids:
                raise DataError(
                    f"sample {examples[longest].uid}: its media alone are over pack_length {self.layout.pack_length}. "
                    "Remedy: a larger pack_length, fewer data.frames, or fusion `attention`."
                )
            give = min(over, max(1, len(encoded[longest].ids) // 2))
            encoded[longest] = cut(encoded[longest], len(encoded[longest].ids) - give)
            over, lost = over - give, lost + give
        return Row(examples, encoded, sum(tries for *_, tries in read), lost)

    def _tokens(self, row: Row) -> int:
        return sum(len(one.ids) for one in row.encoded) + sum(map(self._media_tokens, row.examples))

    def _media_tokens(self, example: Example) -> int:
        return int(self.layout.media_tokens(np.array(_held(example))))

    def _room(self, at: int) -> int:
        return int(self.layout.media_tokens(self.source.media(np.array([at])))[0])


@dataclass(frozen=True, slots=True)
class Row:
    """Samples that share a row, in tokens.

    Args:
        bad: unreadable samples that others stand in for.
        cut_tokens: text that found no place.
    """

    examples: list[Example]
    encoded: list[Encoded]
    bad: int
    cut_tokens: int


def lay_out(rows: Sequence[Row], count: int, length: int, layout: Layout, pad: int) -> Batch:
    """Rows as tensors; position ids begin again at each sample, and there is no attention mask.

    Args:
        count: rows of the result; the further ones are padding.

    Returns:
        input_ids, labels, position_ids, segment: int64 R,L (segment: number of the sample in its row, from 1; 0 is
        padding); picture: uint8 M,3,H,W with picture_row, picture_segment, picture_start (column of its first
        token); sound the same; media's own columns hold `pad` and are never learned.
    """
    ids = np.full((count, length), pad, np.int64)
    labels = np.full((count, length), IGNORED, np.int64)
    segment = np.zeros((count, length), np.int64)
    position = np.zeros((count, length), np.int64)
    places: dict[str, list[tuple[int, int, int]]] = {"picture": [], "sound": []}
    tensors: dict[str, list[torch.Tensor]] = {"picture": [], "sound": []}
    for at, row in enumerate(rows):
        column = 0
        for number, (example, encoded) in enumerate(zip(row.examples, row.encoded, strict=True), 1):
            media = [("picture", one) for one in (example.media.pictures if example.media.pictures is not None else [])]
            media += [("sound", example.media.sound)] if example.media.sound is not None else []
            start, written = column, 0
            for (kind, tensor), text_at in zip(media, encoded.media_at, strict=True):
                column = _write(ids, labels, at, column, encoded, written, text_at)
                written = text_at
                places[kind].append((at, number, column))
                tensors[kind].append(tensor)
                column += layout.picture_tokens if kind == "picture" else layout.sound_tokens
            column = _write(ids, labels, at, column, encoded, written, len(encoded.ids))
            labels[at, start:column][:1] = IGNORED  # what stands before it is of another sample
            segment[at, start:column] = number
            position[at, start:column] = np.arange(column - start)
        position[at, column:] = np.arange(length - column)
    for at in range(len(rows), count):
        position[at] = np.arange(length)
    batch: Batch = {name: torch.from_numpy(value) for name, value in (("input_ids", ids), ("labels", labels))}
    batch |= {"position_ids": torch.from_numpy(position), "segment": torch.from_numpy(segment)}
    for kind, found in places.items():
        table = torch.tensor(found, dtype=torch.long).reshape(-1, 3)
        batch[kind] = torch.stack(tensors[kind]) if found else None
        batch |= {f"{kind}_row": table[:, 0], f"{kind}_segment": table[:, 1], f"{kind}_start": table[:, 2]}
    examples = [example for row in rows for example in row.examples]
    batch["uids"] = [example.uid for example in examples]
    batch["read"] = len(examples)
    batch["bad"] = sum(row.bad for row in rows)
    batch["cut_tokens"] = sum(row.cut_tokens for row in rows)
    return batch


def _write(ids: np.ndarray, labels: np.ndarray, row: int, column: int, encoded: Encoded, start: int, stop: int) -> int:
    end = column + stop - start
    ids[row, column:end] = encoded.ids[start:stop]
    labels[row, column:end] = encoded.labels[start:stop]
    return end


class _From:
    """Yields `consumed` of each step from a start, for ever."""

    def __init__(self, consumed: int, batch_size: int, n: int) -> None:
        self._consumed, self._batch_size, self._n = consumed, batch_size, n

    def __iter__(self) -> Iterator[int]:
        consumed = self._consumed
        while True:
            yield consumed
            consumed = draw(consumed, self._batch_size, self._n).consumed


def batches(reader: Reader, consumed: int, workers: int = 0, prefetch: int = 4) -> Iterator[Batch]:
    """A reader's batches from a state on, without an end, read ahead in worker processes.

    Args:
        consumed: samples consumed before: the loader's whole state.
    """
    sampler: Any = _From(consumed, reader.batch_size, len(reader.source))
    options: dict[str, Any] = {"prefetch_factor": prefetch, "persistent_workers": False} if workers else {}
    return iter(DataLoader(reader, batch_size=None, sampler=sampler, num_workers=workers, **options))


def _held(example: Example) -> tuple[int, int]:
    """Pictures (or frames) and sounds of an example."""
    media = example.media
    return 0 if media.pictures is None else len(media.pictures), int(media.sound is not None)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
