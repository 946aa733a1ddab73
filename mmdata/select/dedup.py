"""Duplicates by URL, bytes or perceptual hash. The one with the best score stays; on a tie, the lowest uid."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np
import polars as pl

from mmdata.select.verdicts import STAYS

_HASH_BITS = 64
_BRUTE_FORCE_ROWS = 2048  # below this all pairs at once beat any table
_BLOCK_ROWS = 1024


def preference(scores: np.ndarray) -> np.ndarray:
    """The rank of each row, 0 for the best: by score, best first, scores that are not finite last, then by uid.

    Args:
        scores: float32, in uid order.

    Returns:
        uint32, a permutation of 0 … n-1.
    """
    # Adding zero makes -0.0 the 0.0 that it equals.
    bits = (np.where(np.isfinite(scores), -scores, np.inf) + 0.0).astype(np.float32).view(np.uint32)
    # IEEE floats sort as integers once negative ones are flipped whole and the others get their sign bit set.
    key = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    key <<= np.uint64(32)
    key |= np.arange(len(scores), dtype=np.uint64)
    key.sort()
    rank = np.empty(len(scores), np.uint32)
    rank[key.astype(np.uint32)] = np.arange(len(scores), dtype=np.uint32)
    return rank


def same_value(values: pl.Series, rank: np.ndarray) -> np.ndarray:
    """Leaders by equal values: within each value the row of the best rank stays.

    Args:
        values: any hashable column; null equals nothing.
        rank: distinct integers, the lower the better.

    Returns:
        int64, for each row the place of the row that stays instead, or `STAYS`.
    """
    leaders = np.full(len(values), STAYS, np.int64)
    values = values.rename("value")
    rows = np.flatnonzero((values.is_duplicated() & values.is_not_null()).to_numpy())
    if len(rows):
        frame = pl.DataFrame({"value": values.gather(rows), "row": rows, "rank": rank[rows]})
        leader = frame.select(pl.col("row").sort_by("rank").first().over("value"))["row"].to_numpy()
        leaders[rows] = np.where(leader == rows, STAYS, leader)
    return leaders


def near_hashes(hashes: pl.Series, rank: np.ndarray, bits: int, group: pl.Series | None = None) -> np.ndarray:
    """Leaders by perceptual hash: a row goes if a better one that stays differs in at most `bits` bits.

    Exact: the same as comparing every pair, best rank first. Equal hashes are folded, and pairs are sought by
    pigeonhole: of b blocks, hashes that differ in d bits agree wholly on at least b - d of them, so each choice of
    that many blocks makes one table (Manku et al. 2007). Time grows with the pairs that share such a choice.

    Args:
        hashes: UInt64; null is like nothing.
        rank: distinct integers, the lower the better.
        bits: 0 … 16.
        group: UInt64, well mixed or 0; rows of different groups are not alike. None: all are of one group.
    """
    leaders = same_value(hashes if group is None else hashes ^ group, rank)
    rows = np.flatnonzero((leaders == STAYS) & hashes.is_not_null().to_numpy())
    if bits and len(rows) > 1:
        rows = rows[np.argsort(rank[rows])]
        values = hashes.gather(rows).to_numpy()
        pairs = list(
            near_pairs(values, bits) if group is None else _pairs_in_groups(values, group.gather(rows).to_numpy(), bits)
        )
        low = np.concatenate([pair[0] for pair in pairs]) if pairs else np.empty(0, np.int64)
        high = np.concatenate([pair[1] for pair in pairs]) if pairs else np.empty(0, np.int64)
        chosen = keep_greedily(len(rows), low, high)
        dropped = chosen != STAYS
        leaders[rows[dropped]] = rows[chosen[dropped]]
    followed = np.flatnonzero(leaders != STAYS)
    further = leaders[leaders[followed]]
    leaders[followed[further != STAYS]] = further[further != STAYS]
    return leaders


def near_any(hashes: np.ndarray, others: np.ndarray, bits: int) -> np.ndarray:
    """Which hashes differ from one of `others` in at most `bits` bits: bool, one a hash. Exact.

    Args:
        hashes, others: uint64.
    """
    others, distinct = np.unique(others), np.unique(hashes)
    near = np.isin(distinct, others)
    rest = np.flatnonzero(~near)
    if bits and len(others) and len(rest):
        for low, high in near_pairs(np.concatenate([others, distinct[rest]]), bits):
            across = (low < len(others)) & (high >= len(others))
            near[rest[high[across] - len(others)]] = True
    return near[np.searchsorted(distinct, hashes)]


def keep_greedily(rows: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Go through the rows in order, and drop each that is like an earlier one that stays. Vectorised, in rounds.

    Args:
        low, high: the pairs that are alike, `low < high`; in any order.

    Returns:
        int64, for each row the first row that stays and is like it, or `STAYS`.
    """
    dropped = np.zeros(rows, bool)
    a, b = low, high
    while len(a):
        blocked = np.zeros(rows, bool)
        blocked[b] = True
        dropped[b[~blocked[a]]] = True
        open_still = ~(dropped[a] | dropped[b])
        a, b = a[open_still], b[open_still]
    leaders = np.full(rows, rows, np.int64)
    settled = ~dropped[low] & dropped[high]
    np.minimum.at(leaders, high[settled], low[settled])
    return np.where(dropped, leaders, STAYS)


def near_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs (low < high, places in `hashes`) of distinct hashes that differ in at most `bits` bits.

    In batches; each pair comes once.
    """
    agreeing = _blocks_to_agree(len(hashes), bits)
    if agreeing == 0:
        yield from _all_pairs(hashes, bits)
        return
    bounds = np.linspace(0, _HASH_BITS, bits + agreeing + 1).round().astype(int)
    masks = [(1 << int(stop)) - (1 << int(start)) for start, stop in pairwise(bounds)]
    for chosen in combinations(range(len(masks)), agreeing):
        key = np.uint64(sum(masks[block] for block in chosen))
        skipped = [np.uint64(masks[block]) for block in range(chosen[-1]) if block not in chosen]
        for low, high in _pairs_in_buckets(hashes, hashes & key, bits):
            # A pair that agrees on an earlier block too was found by an earlier table.
            differing = hashes[low] ^ hashes[high]
            new = np.logical_and.reduce([differing & mask != 0 for mask in skipped]) if skipped else slice(None)
            yield low[new], high[new]


def _pairs_in_groups(hashes: np.ndarray, group: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`near_pairs` within each group. All small groups are gone through at once; most have one row."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.append(True, group[order[1:]] != group[order[:-1]]))
    sizes = np.diff(np.append(starts, len(order)))
    for at in np.flatnonzero(sizes > _BRUTE_FORCE_ROWS):
        rows = order[starts[at] : starts[at] + sizes[at]]
        for low, high in near_pairs(hashes[rows], bits):
            yield rows[low], rows[high]
    rows = np.sort(order[np.repeat((sizes > 1) & (sizes <= _BRUTE_FORCE_ROWS), sizes)])
    for low, high in _pairs_in_buckets(hashes[rows], group[rows], bits):
        yield rows[low], rows[high]


def _blocks_to_agree(rows: int, bits: int) -> int:
    """The number of blocks with the cheapest tables, if hashes were uniform; 0: compare all pairs."""
    if rows <= _BRUTE_FORCE_ROWS:
        return 0
    cost = {0: rows * rows / 2}
    for agreeing in range(1, 5):
        blocks = bits + agreeing
        bucket = rows * 2.0 ** -(_HASH_BITS * agreeing / blocks)
        cost[agreeing] = comb(blocks, agreeing) * rows * (40 + 2 * bucket)
    return min(cost, key=lambda agreeing: cost[agreeing])


def _all_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(hashes), _BLOCK_ROWS):
        block = hashes[start : start + _BLOCK_ROWS]
        for other in range(0, start + len(block), _BLOCK_ROWS):
            distance = np.bitwise_count(block[:, None] ^ hashes[None, other : other + _BLOCK_ROWS])
            high, low = np.nonzero(distance <= bits)
            high, low = high + start, low + other
            earlier = low < high
            if earlier.any():
                yield low[earlier], high[earlier]


def _pairs_in_buckets(hashes: np.ndarray, key: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (low < high) with the same key whose hashes differ in at most `bits` bits."""
    order = np.argsort(key)
    key, sorted_hashes = key[order], hashes[order]
    # Rows i and i + step share a bucket; the list of such i only shrinks as the step grows.
    first = np.flatnonzero(key[1:] == key[:-1])
    step = 1
    while len(first):
        near = np.bitwise_count(sorted_hashes[first] ^ sorted_hashes[first + step]) <= bits
        if near.any():
            left, right = order[first[near]], order[first[near] + step]
            yield np.minimum(left, right), np.maximum(left, right)
        step += 1
        first = first[first + step < len(key)]
        first = first[key[first] == key[first + step]]
