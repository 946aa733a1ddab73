"""Data order as a pure function of (seed, epoch, position), without state, so that any step can be resumed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ROUNDS = 4  # of the Feistel network


class Picked(NamedTuple):
    """The samples at some positions of an epoch."""

    samples: np.ndarray  # int64 N; numbers of the samples
    passes: np.ndarray  # int64 N; how often all samples of its source have been read before, for each sample


@dataclass(frozen=True, slots=True)
class Order:
    """A permutation of range(n) for each epoch. Any position of it is computed in constant time and memory.

    Blocks of neighbours, which lie together in a shard, are permuted. Then the samples of each window of
    `window_blocks` blocks are permuted, as a shuffle buffer of that size would do.
    """

    n: int
    seed: int
    block: int = 256  # samples
    window_blocks: int = 64

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The samples at these positions of the epoch.

        Args: positions: int64, each in [0, n).
        Returns: int64, as long as `positions`. Over all positions of an epoch, each of range(n) comes once.
        """
        positions = np.asarray(positions, np.int64)
        blocks = self.n // self.block  # whole blocks; the samples after them are permuted within the last window only
        span = self.block * self.window_blocks
        windows = max(1, -(-blocks * self.block // span))
        window = np.minimum(positions // span, windows - 1)
        samples = np.empty_like(positions)
        for number in np.unique(window):
            chosen = window == number
            start = int(number) * span
            stop = self.n if number == windows - 1 else start + span
            shuffled = permuted(positions[chosen] - start, stop - start, self._key(epoch, f"window {number}")) + start
            whole = shuffled < blocks * self.block
            block, offset = np.divmod(shuffled[whole], self.block)
            shuffled[whole] = permuted(block, blocks, self._key(epoch, "blocks")) * self.block + offset
            samples[chosen] = shuffled
        return samples

    def pick(self, epoch: int, positions: np.ndarray) -> Picked:
        """The samples at these positions of the epoch, which is one pass over all samples."""
        samples = self.at(epoch, positions)
        return Picked(samples, np.full_like(samples, epoch))

    def _key(self, epoch: int, purpose: str) -> int:
        return int.from_bytes(hash_bytes(self.seed, epoch, purpose), "little")


def permuted(values: np.ndarray, n: int, key: int) -> np.ndarray:
    """Values under a keyed permutation of range(n): a Feistel network with cycle walking (Black and Rogaway 2002).

    Args: values: int64 in [0, n).
    """
    if n <= 1 or not len(values):
        return values.copy()
    half = np.uint64(max(1, -(-(n - 1).bit_length() // 2)))
    out = _feistel(values.astype(np.uint64), half, key)
    while len(outside := np.flatnonzero(out >= n)):  # the network permutes up to 4n values: walk on until below n
        out[outside] = _feistel(out[outside], half, key)
    return out.astype(np.int64)


def _feistel(values: np.ndarray, half: np.uint64, key: int) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for round_ in range(ROUNDS):
        left, right = right, left ^ (_mix(right + np.uint64((key + round_ * 0x9E3779B97F4A7C15) % 2**64)) & mask)
    return (left << half) | right


def _mix(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Draw:
    """The samples of a step."""

    epoch: int  # from 0
    positions: np.ndarray  # int64; in that epoch's order
    consumed: int  # samples consumed after the step; the loader's whole state


def next_draw(consumed: int, batch_size: int, n: int) -> Draw:
    """The samples after the first `consumed`: `batch_size` of them, or as many as are left of the epoch."""
    epoch, start = divmod(consumed, n)
    stop = min(start + batch_size, n)
    return Draw(epoch, np.arange(start, stop), consumed + stop - start)


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed from some numbers."""
    return int.from_bytes(hash_bytes(*numbers), "little") >> 1


def hash_bytes(*words: int | str) -> bytes:
    """Eight bytes that depend on some words: the same on every machine and in every version."""
    return hashlib.blake2b("\x1f".join(map(str, words)).encode(), digest_size=8).digest()
