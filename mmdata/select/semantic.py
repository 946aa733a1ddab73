"""Semantic duplicates (SemDeDup, Abbas et al. 2023): near embeddings within the same k-means cluster."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from mmdata.select.dedup import keep_greedily
from mmdata.select.scores.exact import DOUBT
from mmdata.select.verdicts import STAYS

_BLOCK_ROWS = 1024


def semantic_leaders(embeddings: np.ndarray, cluster: np.ndarray, rank: np.ndarray, eps: float) -> np.ndarray:
    """Leaders by embedding: a row is dropped if a better row of its cluster stays and has cosine >= 1 - eps with it.

    Greedy against what is kept, best rank first. Blocks of 1024 x 1024 products bound the memory; what decides is the
    exact product in float64, so that neither BLAS nor the order of rows does.

    Args:
        embeddings: float16, (n, dim), not zero; may be a memory map.
        cluster: int32, (n,); negative: no cluster, hence no duplicate.
        rank: distinct integers, the lower the better.

    Returns:
        int64, (n,): the row that stays instead, or `STAYS`.
    """
    leaders = np.full(len(cluster), STAYS, np.int64)
    order = np.lexsort((rank, cluster))
    order = order[cluster[order] >= 0]
    bounds = np.flatnonzero(np.diff(cluster[order], prepend=-1, append=-1))
    for start, stop in pairwise(bounds):
        rows = order[start:stop]
        if len(rows) > 1:
            chosen = _leaders_in_cluster(np.asarray(embeddings[rows]), 1.0 - eps)
            dropped = chosen != STAYS
            leaders[rows[dropped]] = rows[chosen[dropped]]
    return leaders


def comparison_groups(cluster: np.ndarray, is_clip: np.ndarray, words: pl.Series) -> np.ndarray:
    """A number for each row, int32: only rows of one number are compared.

    Pictures and clips share clusters, but are never duplicates of each other. Clips are compared where their words are
    the same, too: see `words` of `candidates.compact`.
    """
    groups = cluster.copy()
    of_clips = pl.DataFrame({"cluster": cluster[is_clip], "words": words.filter(pl.Series(is_clip))})
    ranks = of_clips.select(pl.struct("cluster", "words").rank("dense")).to_series().to_numpy()
    groups[is_clip] = ranks.astype(np.int32) + cluster.max(initial=0)
    return groups


def _leaders_in_cluster(points: np.ndarray, least: float) -> np.ndarray:
    """Leaders among the rows of a cluster, which are in order of rank."""
    norms = np.sqrt(np.einsum("nd,nd->n", points, points, dtype=np.float64))
    unit = (points / norms[:, None]).astype(np.float32)
    leaders = np.full(len(points), STAYS, np.int64)
    kept: list[np.ndarray] = []
    for start in range(0, len(points), _BLOCK_ROWS):
        block = np.arange(start, min(start + _BLOCK_ROWS, len(points)))
        for earlier in kept:
            high, low = _alike(points, unit, norms, block, earlier, least)
            # Pairs come sorted, so the first of a row names the best of those that stay.
            followers, first = np.unique(high, return_index=True)
            leaders[followers] = low[first]
            block = block[leaders[block] == STAYS]
        high, low = _alike(points, unit, norms, block, block, least)
        forward = low < high
        place = np.searchsorted(block, np.stack([low[forward], high[forward]]))
        chosen = keep_greedily(len(block), place[0], place[1])
        dropped = chosen != STAYS
        leaders[block[dropped]] = block[chosen[dropped]]
        kept.append(block[~dropped])
    return leaders


def _alike(
    points: np.ndarray, unit: np.ndarray, norms: np.ndarray, rows: np.ndarray, others: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (row, other) whose cosine is at least `least`, sorted by row, then other."""
    near = np.nonzero(unit[rows] @ unit[others].T >= least - DOUBT)
    row, other = rows[near[0]], others[near[1]]
    same = np.empty(len(row), bool)
    for start in range(0, len(row), _BLOCK_ROWS):
        a, b = row[start : start + _BLOCK_ROWS], other[start : start + _BLOCK_ROWS]
        products = np.einsum("nd,nd->n", points[a], points[b], dtype=np.float64)
        same[start : start + len(a)] = products >= least * (norms[a] * norms[b])
    return row[same], other[same]
