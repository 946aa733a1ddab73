"""Batches as a pure function of (release, seed, samples consumed): the same at any world size and worker count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmdata.errors import DataError
from training.data.batch_assembly import BatchAssembly
from training.data.batch_types import BatchType, PairBatch, RowBatch
from training.data.examples import Example, Source
from training.data.media_tensors import Media
from training.data.mixture import Mixture
from training.data.order import Order, Picked, hash_bytes, next_draw
from training.data.row_layout import EncodedRow, Layout, cut_to, lay_out, pack
from training.data.sample_reader import BadSample
from training.data.text_codec import Encoded, TextCodec, truncated

MAX_REPLACEMENTS = 64  # neighbours tried in place of a bad sample, before the data counts as broken
PIECE_SAMPLES = 64  # of a batch, that a worker reads at once
CALIBRATION_SAMPLES = 256  # samples on which the tokens per estimated token are measured
LENGTH_STEP = 64  # rows that are not packed are as long as the longest, rounded up to a multiple of this


Piece = TypeVar("Piece")


class EmptySplit(DataError):
    """A split has no samples for a stage."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of each batch that this process reads."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class Plan(Generic[Piece]):
    """What this process reads for a batch.

    Args:
        pieces: at least one; each is read by one worker, and they are joined in this order.
        consumed: samples consumed after the batch.
    """

    pieces: list[Piece]
    consumed: int


class Reader(ABC, Generic[BatchType, Piece]):
    """Reads a step's batch piece by piece; its index is the number of samples consumed before.

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

    def __getitem__(self, consumed: int) -> BatchType:
        plan = self.plan(consumed)
        return self.joined(map(self.read, plan.pieces), plan)

    def plan(self, consumed: int) -> Plan[Piece]:
        """This process's share of the batch after `consumed` samples. No sample is read for it."""
        drawn = next_draw(consumed, self.batch_size, self.order.n)
        return Plan(self.pieces(self.order.pick(drawn.epoch, drawn.positions)), drawn.consumed)

    def joined(self, pieces: Iterable[BatchType], plan: Plan[Piece], pin: bool = False) -> BatchType:
        """The batch from its pieces. Args: pin: into page-locked memory, for a copy to a GPU."""
        assembly = BatchAssembly[BatchType](len(plan.pieces), pin)
        for piece in pieces:
            assembly.add(piece)
        return replace(assembly.batch(), consumed=plan.consumed)

    @abstractmethod
    def pieces(self, picked: Picked) -> list[Piece]:
        """This process's share of a batch. Args: picked: the whole batch's samples, as indices into the source."""

    @abstractmethod
    def read(self, piece: Piece) -> BatchType:
        """A piece of a batch, in memory."""

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


@dataclass(frozen=True, slots=True)
class PairPiece:
    """Neighbouring places of a batch of pairs. Args: samples: index and pass of each; padding: empty places behind."""

    samples: list[tuple[int, int]]
    padding: int


class PairReader(Reader[PairBatch, PairPiece]):
    """Batches for contrastive training.

    Args: tokenize: captions -> int64 N,T, or cached features N,C.
    """

    def __init__(
        self,
        source: Source,
        order: Order | Mixture,
        batch_size: int,
        share: Share,
        tokenize: Callable[[list[str]], Tensor],
    ) -> None:
        super().__init__(source, order, batch_size, share)
        self._tokenize = tokenize

    def pieces(self, picked: Picked) -> list[PairPiece]:
        size = self.batch_size // self.share.world
        of_rank = slice(self.share.rank * size, (self.share.rank + 1) * size)
        local = list(zip(picked.samples[of_rank].tolist(), picked.passes[of_rank].tolist(), strict=True))
        starts = range(0, size, PIECE_SAMPLES)
        samples = [local[start : start + PIECE_SAMPLES] for start in starts]
        return [
            PairPiece(chosen, min(PIECE_SAMPLES, size - start) - len(chosen))
            for start, chosen in zip(starts, samples, strict=True)
        ]

    def read(self, piece: PairPiece) -> PairBatch:
        self.source.expect([index for index, _ in piece.samples])
        read = [self.example(*sample) for sample in piece.samples]
        examples, padding = [example for example, _ in read], piece.padding
        captions = [example.turns[-1].text for example in examples]
        groups = [int.from_bytes(hash_bytes(caption), "little", signed=True) for caption in captions]
        media = [example.media for example in examples]
        picture, picture_of, sound, sound_of = stack_media(media)
        return PairBatch(
            text=self._tokenize(captions + [""] * padding),
            weight=torch.tensor([1.0] * len(read) + [0.0] * padding),
            group=torch.tensor(groups + [0] * padding),
            is_clip=torch.tensor([m.is_clip for m in media], dtype=torch.bool),
            picture=picture,
            picture_of=picture_of,
            sound=sound,
            sound_of=sound_of,
            uids=[example.uid for example in examples],
            read=len(read),
            bad=sum(tries for _, tries in read),
        )


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


@dataclass(frozen=True, slots=True)
class RowPiece:
    """Rows of a batch. Args: rows: index and pass of the samples of each; padding: empty rows behind."""

    rows: list[list[tuple[int, int]]]
    padding: int


class RowReader(Reader[RowBatch, RowPiece]):
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

    def pieces(self, picked: Picked) -> list[RowPiece]:
        rows = self.rows(picked)
        count = -(-len(rows) // self.share.world)
        own_rows = rows[self.share.rank :: self.share.world]
        pieces, samples = [RowPiece([], 0)], 0
        for row in own_rows:
            if samples and samples + len(row) > PIECE_SAMPLES:
                pieces.append(RowPiece([], 0))
                samples = 0
            pieces[-1].rows.append([(int(picked.samples[at]), int(picked.passes[at])) for at in row])
            samples += len(row)
        return [*pieces[:-1], replace(pieces[-1], padding=count - len(own_rows))]

    def read(self, piece: RowPiece) -> RowBatch:
        self.source.expect([index for row in piece.rows for index, _ in row])
        rows = [self._row(samples) for samples in piece.rows]
        return lay_out(rows, len(rows) + piece.padding, self.layout.pack_length, self.layout, self._codec.pad)

    def joined(self, pieces: Iterable[RowBatch], plan: Plan[RowPiece], pin: bool = False) -> RowBatch:
        batch = super().joined(pieces, plan, pin)
        if self.layout.packed:
            return batch
        longest = max(1, int((batch.segment > 0).sum(1).max()))
        return batch.cut_to(min(self.layout.pack_length, LENGTH_STEP * -(-longest // LENGTH_STEP)))

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
