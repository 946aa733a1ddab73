"""Batches as a pure function of (release, seed, samples consumed): the same at any world size and worker count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmdata.errors import DataError
from training.data.examples import Batch, Example, Instructions, Pairs, media_count
from training.data.order import Draw, Order, draw, mixed
from training.data.pack import pack
from training.data.release_index import BadSample
from training.data.rows import Layout, Row, lay_out
from training.data.tensors import Media, cropped
from training.data.tokens import Encoded, TextCodec, cut

MAX_REPLACEMENTS = 64  # neighbours tried in a bad sample's place before the data counts as broken

CALIBRATION = 256  # samples that tokens per estimated token are measured on


class NothingToRead(DataError):
    """A split that has nothing for a stage."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of each batch this process reads."""

    rank: int = 0
    world: int = 1


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
        return self._codec.caption(example.turns[-1].text, sum(media_count(example)))

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
        return int(self.layout.media_tokens(np.array(media_count(example))))

    def _room(self, at: int) -> int:
        return int(self.layout.media_tokens(self.source.media(np.array([at])))[0])


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


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
