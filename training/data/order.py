"""Data order as a pure function: which sample stands at a position of an epoch. No state, no random generator."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Order:
    """A block permutation of range(n), another one each epoch, that gives any position in constant time and memory.

    Blocks of neighbours (which lie together in a shard) are permuted; then the samples of each run of `window_blocks`
    blocks are permuted among each other, as a shuffle buffer of that size would, but exactly.

    Args:
        n: samples.
        seed: another one, another order.
        block: neighbours that one read can serve.
        window_blocks: blocks that are mixed.
    """

    n: int
    seed: int
    block: int = 256
    window_blocks: int = 64

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The samples at these positions of the epoch.

        Args:
            positions: int64, each in [0, n).

        Returns:
            int64, as long as `positions`; over all positions of an epoch each of range(n) comes once.
        """
        positions = np.asarray(positions, np.int64)
        blocks = self.n // self.block  # whole ones; the rest of the samples stays behind them
        span = self.block * self.window_blocks
        windows = max(1, -(-blocks * self.block // span))
        window = np.minimum(positions // span, windows - 1)
        out = np.empty_like(positions)
        for one in np.unique(window):
            chosen = window == one
            start = int(one) * span
            stop = self.n if one == windows - 1 else start + span
            inside = permuted(positions[chosen] - start, stop - start, self._key(epoch, f"window {one}")) + start
            whole = inside < blocks * self.block
            inside[whole] = (
                permuted(inside[whole] // self.block, blocks, self._key(epoch, "blocks")) * self.block
                + inside[whole] % self.block
            )
            out[chosen] = inside
        return out

    def _key(self, epoch: int, what: str) -> int:
        text = f"{self.seed}\x1f{epoch}\x1f{what}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def permuted(values: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where a keyed permutation of range(n) sends `values`: a Feistel network with cycle walking (Black, Rogaway 2002).

    Args:
        values: int64 in [0, n).
    """
    if n <= 1 or not len(values):
        return values.copy()
    half = np.uint64(max(1, -(-(n - 1).bit_length() // 2)))
    out = _feistel(values.astype(np.uint64), half, key)
    while len(outside := np.flatnonzero(out >= n)):  # at most 4n values: three walks on average
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
    """A step's share of an epoch.

    Args:
        epoch: counted from 0.
        positions: int64, in that epoch's order.
        consumed: the loader's whole state after it.
    """

    epoch: int
    positions: np.ndarray
    consumed: int


def draw(consumed: int, batch_size: int, n: int) -> Draw:
    """The next samples after `consumed` of them: `batch_size`, or what is left of the epoch."""
    epoch, start = divmod(consumed, n)
    stop = min(start + batch_size, n)
    return Draw(epoch, np.arange(start, stop), consumed + stop - start)


def mixed(*words: int) -> int:
    """A 63-bit seed from some numbers."""
    digest = hashlib.blake2b("\x1f".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
