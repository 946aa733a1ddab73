"""Which pairs are held out of every arm, and which are too like them to be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import polars as pl

from mmdata.samples import hash_words, uid_words, unit_interval
from mmdata.select.dedup import keep_greedily
from mmdata.select.verdicts import STAYS

PHASH_BITS, COSINE_EPS = 4, 0.03
"""Pictures are nearly the same if their perceptual hashes differ in at most so many bits, or if the cosine of their
embeddings is at least 1 - eps."""

_BLOCK = 512


def draw_held_out(frame: pl.DataFrame, share: float, most: int, seed: int) -> np.ndarray:
    """Rows that are held out, int64, in the order of their draws: one a group, or one a picture where there are none.

    Where the truth is known, a pair whose caption is false is not drawn. A group is drawn whole: of its other pairs
    none is trained on, see `too_like`.

    Args:
        frame: pairs, with `true_pair` (bool; null: not known).
        share: of all groups. most: at most twice so many rows are drawn; some will be left out as near-duplicates.
    """
    key = pl.coalesce(pl.format("group {}", pl.col("group")), "sha256", "uid")
    named = frame.select(key=key, true_pair=pl.col("true_pair").fill_null(not frame["true_pair"].is_not_null().any()))
    draws = unit_interval(_hashes(named["key"], seed))
    eligible = np.flatnonzero((draws < share) & named["true_pair"].to_numpy())
    high, low = uid_words(frame["uid"])
    within = unit_interval(hash_words(high, low, seed, "compare row"))[eligible]
    order = eligible[np.lexsort((within, draws[eligible]))]
    _, first = np.unique(draws[order], return_index=True)
    return order[np.sort(first)][: 2 * most]


def _hashes(keys: pl.Series, seed: int) -> np.ndarray:
    """64 bits for each key, which no version of Polars changes."""
    distinct = keys.unique(maintain_order=True)
    words = [int.from_bytes(blake2b(f"{seed}\x1f{key}".encode(), digest_size=8).digest(), "big") for key in distinct]
    return keys.replace_strict(distinct, pl.Series(words, dtype=pl.UInt64), return_dtype=pl.UInt64).to_numpy()


class Likeness:
    """Whether pairs are nearly the same: by group, URL, bytes, perceptual hash or embedding, or one is a known copy.

    Args:
        frame: pairs, with `original`: the uid of the pair that one copies, or null.
        image: float32 N,D, of unit length.
    """

    def __init__(self, frame: pl.DataFrame, image: np.ndarray, bits: int = PHASH_BITS, eps: float = COSINE_EPS) -> None:
        self._image, self._bits, self._least = image, bits, 1 - eps
        self._hashes = frame["phash"].fill_null(0).to_numpy()
        self._hashed = frame["phash"].is_not_null().to_numpy()
        copied = pl.coalesce("original", "uid").alias("original")
        families = frame.select(pl.col("group", "url", "sha256"), copied).fill_null("")
        self._same = [np.unique(column.to_list(), return_inverse=True)[1] for column in families]
        self._known = [(families[name] != "").to_numpy() for name in families.columns]

    def __call__(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool rows,others."""
        near = self._image[rows] @ self._image[others].T >= self._least
        apart = np.bitwise_count(self._hashes[rows][:, None] ^ self._hashes[others][None])
        near |= (apart <= self._bits) & self._hashed[rows][:, None] & self._hashed[others][None]
        for same, known in zip(self._same, self._known, strict=True):
            near |= (same[rows][:, None] == same[others][None]) & known[rows][:, None] & known[others][None]
        return near


def thin(alike: Likeness, drawn: np.ndarray, most: int) -> np.ndarray:
    """The first `most` of the drawn rows of which no two are nearly the same, in the order of the rows."""
    later, earlier = np.nonzero(np.tril(alike(drawn, drawn), -1))
    return np.sort(drawn[keep_greedily(len(drawn), earlier, later) == STAYS][:most])


def too_like(alike: Likeness, held_out: np.ndarray, count: int) -> np.ndarray:
    """bool `count`: which rows are held out, or nearly the same as one that is."""
    like = [alike(rows, held_out).any(1) for rows in _blocks(count)]
    return np.concatenate(like) if like else np.empty(0, bool)


def _blocks(count: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))
