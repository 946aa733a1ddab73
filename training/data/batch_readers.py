"""Batches as a pure function of (release, seed, samples consumed): the same at any world size and worker count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmdata.errors import DataError
from training.data.augment import random_crop
from training.data.batch_types import BatchType, BatchType_co, PairBatch, RowBatch, to_device
from training.data.examples import Example, Source
from training.data.media_tensors import Media
from training.data.mixture import Mixture
from training.data.order import Order, Picked, derived_seed, hash_bytes, next_draw
from training.data.row_layout import EncodedRow, Layout, cut_to, lay_out, pack
from training.data.sample_reader import BadSample
from training.data.text_codec import Encoded, TextCodec, truncated

MAX_REPLACEMENTS = 64  # neighbours tried in place of a bad sample, before the data counts as broken
CALIBRATION_SAMPLES = 256  # samples on which the tokens per estimated token are measured
LENGTH_STEP = 64  # rows that are not packed are as long as the longest, rounded up to a multiple of this


class EmptySplit(DataError):
    """A split has no samples for a stage."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of each batch that this process reads."""

    rank: int = 0
    world: int = 1


class Reader(Dataset[BatchType_co], ABC):
    """Reads a step's batch; its index is the number of samples consumed before.

    Args:
        source: the samples.
        order: of the samples; a Mixture draws several sources by weight.
        batch_size: samples of a batch, over all processes.

    Raises EmptySplit: the source has no samples.
    """

    def __init__(self, source: Source, order: Order | Mixture, batch_size: int, share: Share) -> None:
        if not len(source):
            raise EmptySplit("the release has no samples of this kind in this split, so there is nothing to train on")
        self.source, self.order, self.batch_size, self.share = source, order, batch_size, share

    def __getitem__(self, consumed: int) -> BatchType_co:
        drawn = next_draw(consumed, self.batch_size, self.order.n)
        return self.batch(self.order.pick(drawn.epoch, drawn.positions), drawn.consumed)

    @abstractmethod
    def batch(self, picked: Picked, consumed: int) -> BatchType_co:
        """This process's share of a batch.

        Args:
            picked: the whole batch's samples, as indices into the source.
            consumed: samples consumed after the batch.
        """

    def example(self, index: int, pass_number: int = 0) -> tuple[Example, int]:
        """A sample as a pass reads it, or the next readable one, and the number of bad samples passed over."""
        for tries in range(MAX_REPLACEMENTS):
            try:
                return self.source.read((index + tries) % len(self.source), pass_number), tries
            except BadSample as error:
                last = error
        raise DataError(
            f"{MAX_REPLACEMENTS} samples in a row cannot be read; the last: {last}. "
            "Remedy: `mmdata verify --decode` names them."
        )


class PairReader(Reader[PairBatch]):
    """Batches for contrastive training.

    Args:
        tokenize: captions -> int64 N,T, or cached features N,C.
        crop_scale: smallest share of a picture's area that a random crop keeps; 1: pictures stay whole.
    """

    def __init__(
        self,
        source: Source,
        order: Order | Mixture,
        batch_size: int,
        share: Share,
        tokenize: Callable[[list[str]], Tensor],
        crop_scale: float = 1.0,
    ) -> None:
        super().__init__(source, order, batch_size, share)
        self._tokenize, self._crop_scale = tokenize, crop_scale

    def batch(self, picked: Picked, consumed: int) -> PairBatch:
        size = self.batch_size // self.share.world
        of_rank = slice(self.share.rank * size, (self.share.rank + 1) * size)
        local = list(zip(picked.samples[of_rank].tolist(), picked.passes[of_rank].tolist(), strict=True))
        padding = size - len(local)
        read = [self.example(*sample) for sample in local]
        examples = [example for example, _ in read]
        captions = [example.turns[-1].text for example in examples]
        groups = [int.from_bytes(hash_bytes(caption), "little", signed=True) for caption in captions]
        media = [self._cropped(e.media, *sample) for e, sample in zip(examples, local, strict=True)]
        picture, picture_of, sound, sound_of = stack_media(media)
        return PairBatch(
            text=self._tokenize(captions + [""] * padding),
            weight=torch.tensor([1.0] * len(local) + [0.0] * padding),
            group=torch.tensor(groups + [0] * padding),
            is_clip=torch.tensor([m.is_clip for m in media], dtype=torch.bool),
            picture=picture,
            picture_of=picture_of,
            sound=sound,
            sound_of=sound_of,
            uids=[example.uid for example in examples],
            read=len(local),
            bad=sum(tries for _, tries in read),
            consumed=consumed,
        )

    def _cropped(self, media: Media, index: int, pass_number: int) -> Media:
        """The media with pictures cropped by a draw from (seed, pass, sample)."""
        if self._crop_scale == 1.0 or media.pictures is None:
            return media
        seed = derived_seed(self.order.seed, pass_number, index)
        return replace(media, pictures=random_crop(media.pictures, self._crop_scale, seed))


def stack_media(media: Sequence[Media]) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor]:
    """All pictures and all sounds of some samples, each with the index of the sample that it belongs to.

    Returns: picture, picture_of, sound, sound_of of a PairBatch.
    """
    pictures = [m.pictures for m in media if m.pictures is not None]
    sounds = [m.sound for m in media if m.sound is not None]
    picture_of = [at for at, m in enumerate(media) if m.pictures is not None for _ in range(len(m.pictures))]
    sound_of = [at for at, m in enumerate(media) if m.sound is not None]
    return (
        torch.cat(pictures) if pictures else None,
        torch.tensor(picture_of, dtype=torch.long),
        torch.stack(sounds) if sounds else None,
        torch.tensor(sound_of, dtype=torch.long),
    )


class RowReader(Reader[RowBatch]):
    """Batches for the language model: rows of tokens, each of one or more samples.

    The whole batch is packed at once, from the lengths in the index alone, so that all processes come to the same
    rows without reading a sample. Then each process reads its share of the rows.
    """

    def __init__(
        self,
        source: Source,
        order: Order | Mixture,
        batch_size: int,
        share: Share,
        codec: TextCodec,
        layout: Layout,
    ) -> None:
        super().__init__(source, order, batch_size, share)
        self._codec, self.layout = codec, layout
        self._slope, self._extra = self._calibrated()

    def batch(self, picked: Picked, consumed: int) -> RowBatch:
        rows = self.rows(picked)
        count = -(-len(rows) // self.share.world)
        own_rows = rows[self.share.rank :: self.share.world]
        local = [self._row([(int(picked.samples[at]), int(picked.passes[at])) for at in row]) for row in own_rows]
        length = self.layout.pack_length
        if not self.layout.packed:
            longest = max((self._tokens(row) for row in local), default=1)
            length = min(length, LENGTH_STEP * -(-longest // LENGTH_STEP))
        return replace(lay_out(local, count, length, self.layout, self._codec.pad), consumed=consumed)

    def rows(self, picked: Picked) -> list[list[int]]:
        """The batch's rows, each a list of positions in `picked`."""
        if not self.layout.packed:
            return [[at] for at in range(len(picked.samples))]
        return pack(self._budgets(picked).tolist(), self.layout.pack_length)

    def _budgets(self, picked: Picked) -> np.ndarray:
        """Columns that each sample is expected to take."""
        text = np.ceil(self.source.tokens(*picked) * self._slope + self._extra).astype(np.int64)
        media = self.layout.media_tokens(self.source.media(picked.samples))
        return np.minimum(np.minimum(text, self.layout.max_text_tokens) + media, self.layout.pack_length)

    def _calibrated(self) -> tuple[float, float]:
        """Fit this tokenizer's tokens to the index's estimates.

        Returns: Tokens per estimated token, and a constant part with two standard deviations of headroom.
        """
        samples, _ = self.order.pick(0, np.arange(min(CALIBRATION_SAMPLES, self.order.n)))
        estimates = self.source.tokens(samples).astype(np.float64)
        actual = np.array([self._text_tokens(int(index)) for index in samples], np.float64)
        estimates, actual = estimates[actual > 0], actual[actual > 0]
        if not len(actual):
            return 1.0, 0.0
        spread = estimates.std()
        slope = max(0.0, float(np.cov(estimates, actual, bias=True)[0, 1] / spread**2)) if spread > 0 else 0.0
        residuals = actual - slope * estimates
        return slope, float(residuals.mean() + 2 * residuals.std())

    def _text_tokens(self, index: int) -> int:
        """Tokens of a sample's text; 0 if it cannot be read."""
        try:
            return len(self.encode(Example("", self.source.turns(index), Media(None, None))).ids)
        except BadSample:
            return 0

    def encode(self, example: Example) -> Encoded:
        """An example's tokens, its text cut to `max_text_tokens`."""
        return truncated(self._encode_whole(example), self.layout.max_text_tokens)

    def _encode_whole(self, example: Example) -> Encoded:
        if self.layout.template:
            return self._codec.conversation(example.turns)
        if example.is_document:
            return self._codec.document(example.turns[-1].text)
        return self._codec.caption(example.turns[-1].text, sum(example.media.counts))

    def _row(self, samples: list[tuple[int, int]]) -> EncodedRow:
        """Read the samples of a row (index and pass), and cut their text so that they fit."""
        read = [(index, *self.example(index, pass_number)) for index, pass_number in samples]
        # A replacement with more media than were budgeted for the bad sample would displace the others. Leave it out.
        examples = [e for index, e, tries in read if not tries or self._media_tokens(e) <= self._media_budget(index)]
        encoded = [self._encode_whole(example) for example in examples]
        whole = sum(len(tokens.ids) for tokens in encoded)
        for at, tokens in enumerate(encoded):
            examples[at], encoded[at] = cut_to(examples[at], tokens, self.layout.max_text_tokens, self.layout)
        # lengths were estimates: halve the longest text, or cut as much as is needed
        while (excess := self._tokens(EncodedRow(examples, encoded, 0, 0)) - self.layout.pack_length) > 0:
            longest = max(range(len(encoded)), key=lambda at: (len(encoded[at].ids), at))
            if not encoded[longest].ids:
                raise DataError(
                    f"sample {examples[longest].uid}: its media alone are over pack_length {self.layout.pack_length}. "
                    "Remedy: a larger pack_length, fewer data.frames, or fusion `attention`."
                )
            dropped = min(excess, max(1, len(encoded[longest].ids) // 2))
            left = len(encoded[longest].ids) - dropped
            examples[longest], encoded[longest] = cut_to(examples[longest], encoded[longest], left, self.layout)
        cut = whole - sum(len(tokens.ids) for tokens in encoded)
        return EncodedRow(examples, encoded, sum(tries for *_, tries in read), cut)

    def _tokens(self, row: EncodedRow) -> int:
        return sum(len(tokens.ids) for tokens in row.encoded) + sum(map(self._media_tokens, row.examples))

    def _media_tokens(self, example: Example) -> int:
        return int(self.layout.media_tokens(np.array(example.media.counts)))

    def _media_budget(self, index: int) -> int:
        return int(self.layout.media_tokens(self.source.media(np.array([index])))[0])


def _consumed_counts(consumed: int, batch_size: int, n: int) -> Iterator[int]:
    """The samples consumed before each step, without an end."""
    while True:
        yield consumed
        consumed = next_draw(consumed, batch_size, n).consumed


def batches(reader: Reader[BatchType], consumed: int, workers: int = 0, prefetch: int = 4) -> Iterator[BatchType]:
    """A reader's batches after `consumed` samples, without an end, read ahead in worker processes.

    Args:
        consumed: samples consumed before; this is the loader's whole state.
        prefetch: batches that each worker reads ahead.
    """
    sampler: Any = _consumed_counts(consumed, reader.batch_size, reader.order.n)
    options: dict[str, Any] = {"prefetch_factor": prefetch, "persistent_workers": False} if workers else {}
    return iter(DataLoader(reader, batch_size=None, sampler=sampler, num_workers=workers, **options))


def first_batches(reader: Reader[BatchType], samples: int, device: torch.device) -> list[BatchType]:
    """The batches, on a device, that hold the first `samples` samples of a reader's order."""
    stream = batches(reader, 0)
    return [to_device(next(stream), device) for _ in range(-(-samples // reader.batch_size))]
