"""Near-duplicate texts: MinHash of character shingles (Broder 1997) by rensa; candidates by bands of hashes (LSH)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from upath import UPath

from mmdata.select.dedup import keep_greedily
from mmdata.select.verdicts import STAYS
from mmdata.storage.tables import read_table

SHINGLE = 4  # characters
MIN_CHARACTERS = 28
"""Shorter texts are never near-duplicates: in `recipe 7` and `recipe 8`, the one character is the point."""

HASHES = 128
BANDS = 32
"""A pair is compared where all four hashes of a band agree: 99.99% of the pairs of similarity 0.75, 5% of those of 0.2.
"""

_DOUBT = 0.15
"""Four standard deviations of an estimate from 128 hashes; within it, the exact similarity decides."""

_SEED = 42
_BLOCK_CHARACTERS = 5_000_000
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def near_text_leaders(texts: pl.Series, rank: np.ndarray, least: float) -> np.ndarray:
    """Leaders by text: a row goes if a better one that stays has at least `least` of its shingles in common.

    The measure is the Jaccard similarity of the sets of 4-character shingles, in lower case. One character more in a
    text of 28 leaves it at 0.76. Time and memory grow with the number of texts: within a band, a text is compared with
    the best text of its bucket and with the next better one only.

    Args:
        texts: null has no near-duplicate.
        rank: distinct integers, the lower the better.
        least: in (0, 1].

    Returns:
        int64, for each row the place of the row that stays instead, or `STAYS`.
    """
    leaders = np.full(len(texts), STAYS, np.int64)
    lower = texts.str.to_lowercase()
    rows = np.flatnonzero((lower.str.len_chars() >= MIN_CHARACTERS).fill_null(value=False).to_numpy())
    rows = rows[np.argsort(rank[rows])]
    if len(rows) > 1:
        compared = lower.gather(rows)
        low, high = _likely_pairs(min_hashes(compared), least)
        pairs = zip(compared.gather(low), compared.gather(high), strict=True)
        alike = np.array([similarity(*pair) >= least for pair in pairs], bool)
        chosen = keep_greedily(len(rows), low[alike], high[alike])
        dropped = chosen != STAYS
        leaders[rows[dropped]] = rows[chosen[dropped]]
    return leaders


def texts_like(texts: pl.Series, others: pl.Series, least: float) -> np.ndarray:
    """Which texts equal one of `others`, or have at least `least` of their shingles in common with one.

    Args:
        texts: null is like nothing.
        others: without nulls.
        least: as for `near_text_leaders`; a pair of that similarity is missed as rarely as there.

    Returns:
        bool, one a text.
    """
    lower, wanted = texts.str.to_lowercase().str.strip_chars(), others.str.to_lowercase().str.strip_chars().unique()
    alike = lower.is_in(wanted.implode()).fill_null(value=False).to_numpy().copy()
    wanted = wanted.filter(wanted.str.len_chars() >= MIN_CHARACTERS)
    rows = np.flatnonzero(~alike & (lower.str.len_chars() >= MIN_CHARACTERS).fill_null(value=False).to_numpy())
    if not len(rows) or not len(wanted):
        return alike
    ours, theirs = min_hashes(lower.gather(rows)), min_hashes(wanted)
    pairs = []
    for band in range(0, HASHES, HASHES // BANDS):
        left, right = (
            pl.DataFrame({"key": _band_keys(hashes, band), "at": np.arange(len(hashes))}) for hashes in (ours, theirs)
        )
        pairs.append(left.join(right, on="key", suffix="_other").select("at", "at_other"))
    for at, other in pl.concat(pairs).unique().sort("at", "at_other").iter_rows():
        is_likely = (ours[at] == theirs[other]).mean() >= least - _DOUBT
        if is_likely and not alike[rows[at]]:
            alike[rows[at]] = similarity(lower[int(rows[at])], wanted[other]) >= least
    return alike


def _band_keys(hashes: np.ndarray, start: int) -> np.ndarray:
    """The four hashes of the band that begins at `start` as one number, uint64 (n,)."""
    return np.ascontiguousarray(hashes[:, start : start + HASHES // BANDS]).view(np.uint64)[:, 0]


def read_captions(tables: Sequence[UPath], place: np.ndarray, row: np.ndarray) -> pl.Series:
    """The captions of rows, in their order.

    Args:
        tables: rows tables of all slices.
        place, row: the place of each row's table in `tables`, and the row's place in that table.
    """
    captions = [pl.Series("caption", [], pl.String)]
    order = np.argsort(place, kind="stable")
    for number in np.unique(place):
        table = pl.Series(read_table(tables[number], ["caption"])["caption"])
        captions.append(table.gather(row[order][place[order] == number]).alias("caption"))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pl.concat(captions).gather(back)


def min_hashes(texts: pl.Series) -> np.ndarray:
    """MinHash of each text, uint16 (n, `HASHES`): the share of equal ones estimates the similarity of two texts."""
    from rensa import RMinHash

    blocks = [np.empty((0, HASHES), np.uint16)]
    for shingles, offsets in _shingles(texts):
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, HASHES, _SEED)
        # Two hashes agree by chance in one of 65,536 cases: 16 bits are as good as 32, in half the memory.
        blocks.append((np.array(matrix.to_rows(), np.uint64) & np.uint64(0xFFFF)).astype(np.uint16))
    return np.concatenate(blocks)


def _shingles(texts: pl.Series) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of texts: a hash of each shingle (uint64), and where the shingles of each text begin and end."""
    lengths = texts.str.len_chars().to_numpy().astype(np.int64)
    block = np.cumsum(lengths) // _BLOCK_CHARACTERS
    starts = [0, *(np.flatnonzero(np.diff(block)) + 1), len(texts)]
    for start, stop in pairwise(starts):
        codes = np.frombuffer("".join(texts[start:stop]).encode("utf-32-le"), np.uint32).astype(np.uint64)
        rolled = codes[: len(codes) - SHINGLE + 1].copy()
        for step in range(1, SHINGLE):
            rolled = rolled * _MULTIPLIER + codes[step : len(codes) - SHINGLE + 1 + step]
        ends = np.cumsum(lengths[start:stop])
        is_within = np.ones(len(rolled), bool)
        for step in range(1, SHINGLE):  # the last characters of a text begin no shingle of it
            is_within[ends[:-1] - step] = False
        offsets = np.append(0, np.cumsum(lengths[start:stop] - SHINGLE + 1)).astype(np.uint64)
        yield rolled[is_within], offsets


def similarity(text: str, other: str) -> float:
    """The Jaccard similarity of the shingles of two texts, exactly."""
    a, b = ({one[at : at + SHINGLE] for at in range(len(one) - SHINGLE + 1)} for one in (text, other))
    return len(a & b) / len(a | b)


def _likely_pairs(hashes: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (low < high, places in `hashes`) that share a band and may have at least the similarity `least`."""
    pairs = [np.empty(0, np.int64)]  # low * rows + high
    for start in range(0, HASHES, HASHES // BANDS):
        keys = _band_keys(hashes, start)
        order = np.argsort(keys, kind="stable")  # within a bucket, the better rows come first
        is_new = np.append(True, keys[order[1:]] != keys[order[:-1]])
        best = order[np.flatnonzero(is_new)[np.cumsum(is_new) - 1]]
        follows = np.flatnonzero(~is_new)
        pairs += [better * len(hashes) + order[follows] for better in (best[follows], order[follows - 1])]
    low, high = np.divmod(np.unique(np.concatenate(pairs)), len(hashes))
    is_likely = np.empty(len(low), bool)
    for first in range(0, len(low), _BLOCK_CHARACTERS // HASHES):
        block = slice(first, first + _BLOCK_CHARACTERS // HASHES)
        is_likely[block] = (hashes[low[block]] == hashes[high[block]]).mean(axis=1) >= least - _DOUBT
    return low[is_likely], high[is_likely]
