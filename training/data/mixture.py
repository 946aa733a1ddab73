"""Several sources of samples read as one, each by its weight, in an order that is a pure function of the position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.examples import Example, Source
from training.data.media_tensors import EncodedMedia
from training.data.order import Order, Picked
from training.data.text_codec import Turn

_MAX_INT64_EPOCH = 3_000_000_000  # samples; the product of two positions in a longer epoch does not fit in int64


@dataclass(frozen=True, slots=True)
class Mixture:
    """Draws several sources side by side, evenly by weight.

    An epoch has `weight * n` samples of a source of n samples, rounded, and at least one. Each source goes through its
    own order again and again, whatever the epochs of the mixture: no sample of a source is read again before all of
    the source have been read. With weight 0.5 an epoch thus reads one half of the source, and the next one the other.

    Args:
        orders: of the sources; a sample's number counts the samples of the sources before its own.
        weights: over 0.
    """

    orders: tuple[Order, ...]
    weights: tuple[float, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of each source in an epoch."""
        return tuple(max(1, round(w * order.n)) for order, w in zip(self.orders, self.weights, strict=True))

    @property
    def n(self) -> int:
        """Samples in an epoch."""
        return sum(self.counts)

    @property
    def seed(self) -> int:
        """The seed of the sources' orders."""
        return self.orders[0].seed

    def pick(self, epoch: int, positions: np.ndarray) -> Picked:
        """The samples at these positions of the epoch.

        Args: positions: int64, each in [0, n).
        """
        source, place = interleaved(self.counts, np.asarray(positions, np.int64))
        samples, passes = np.empty_like(place), np.empty_like(place)
        first = 0
        for number, (order, count) in enumerate(zip(self.orders, self.counts, strict=True)):
            chosen = source == number
            of_pass, position = np.divmod(epoch * count + place[chosen], order.n)
            passes[chosen] = of_pass
            for one_pass in np.unique(of_pass):
                in_pass = of_pass == one_pass
                samples[np.flatnonzero(chosen)[in_pass]] = first + order.at(int(one_pass), position[in_pass])
            first += order.n
        return Picked(samples, passes)


def interleaved(counts: Sequence[int], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread the places of several sources evenly over the positions of an epoch.

    Each source in turn takes its share of the positions that those before it left, at even distances (Bresenham's
    line). Of the first p positions a source therefore has p * count / n, give or take one for each source before it
    and itself.

    Args:
        counts: places of each source, at least 1; they sum to n.
        positions: int64, each in [0, n).

    Returns: the source of each position, and its place in it: int64 both. Over all positions each place comes once.
    """
    source, place = np.zeros_like(positions), np.empty_like(positions)
    open_at, left = np.arange(len(positions)), positions  # without a source yet, and their positions among those left
    total = sum(counts)
    for number, count in enumerate(counts):
        wide = left if total <= _MAX_INT64_EPOCH else left.astype(object)
        before = (wide * count // total).astype(np.int64)
        is_taken = ((wide + 1) * count // total > before).astype(bool)
        source[open_at[is_taken]], place[open_at[is_taken]] = number, before[is_taken]
        open_at, left = open_at[~is_taken], (left - before)[~is_taken]
        total -= count
    return source, place


class JoinedSource:
    """Several sources as one; a sample's index counts the samples of the sources before its own."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def tokens(self, indices: np.ndarray, passes: np.ndarray | int = 0) -> np.ndarray:
        """As of the sample's own source."""
        passes = np.broadcast_to(passes, indices.shape)
        tokens = np.empty(indices.shape, np.int64)
        for source, at, local in self._by_source(indices):
            tokens[at] = source.tokens(local, passes[at])
        return tokens

    def media(self, indices: np.ndarray) -> np.ndarray:
        """As of the sample's own source."""
        media = np.empty((len(indices), 2), np.int64)
        for source, at, local in self._by_source(indices):
            media[at] = source.media(local)
        return media

    def expect(self, indices: Sequence[int]) -> None:
        """As of the samples' own sources."""
        for source, _, local in self._by_source(np.asarray(indices, np.int64)):
            source.expect(local.tolist())

    def read(self, index: int, pass_number: int = 0) -> Example:
        """As of the sample's own source."""
        source, local = self.locate(index)
        return source.read(local, pass_number)

    def encoded_media(self, index: int) -> EncodedMedia:
        """As of the sample's own source."""
        source, local = self.locate(index)
        return source.encoded_media(local)

    def turns(self, index: int, pass_number: int = 0) -> list[Turn]:
        """As of the sample's own source."""
        source, local = self.locate(index)
        return source.turns(local, pass_number)

    def texts(self, index: int) -> list[str]:
        """As of the sample's own source."""
        source, local = self.locate(index)
        return source.texts(local)

    def locate(self, index: int) -> tuple[Source, int]:
        """The source of a sample, and its index there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.sources[number], index - int(self._ends[number] - len(self.sources[number]))

    def _by_source(self, indices: np.ndarray) -> list[tuple[Source, np.ndarray, np.ndarray]]:
        """Each source, with the places of its samples in `indices` and their indices in the source."""
        numbers = np.searchsorted(self._ends, indices, side="right")
        starts = self._ends - [len(source) for source in self.sources]
        places = [(number, np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
        return [(self.sources[number], at, indices[at] - starts[number]) for number, at in places]
