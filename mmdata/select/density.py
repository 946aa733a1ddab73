"""Density-based pruning (Abbas et al. 2024, arXiv 2401.04578): how many samples a cluster keeps follows its complexity.

A cluster is complex if its samples lie far from its centroid (d_intra) and the centroid far from its neighbours
(d_inter). Simple clusters, dense and crowded by others, lose more of their samples, the most prototypical first.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mmdata.config.select_scores import Density
from mmdata.fingerprint import fingerprint
from mmdata.select.cuts import DensityBounds, top_count
from mmdata.select.rates import near

PRUNED = "density"
"""The reason of what is pruned."""

NEIGHBOURS = 20
"""Nearest centroids that d_inter is the mean over, as in the paper."""

_BLOCK_ROWS = 4096
_NOTHING = 3.0  # farther than any row: 1 - cosine is at most 2


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning decides.

    Args:
        keep: bool (n,).
        bounds: which the next release keeps while they fit.
    """

    keep: np.ndarray
    bounds: DensityBounds


def prune(
    distance: np.ndarray,
    cluster: np.ndarray,
    centroids: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    settings: Density,
    parent: DensityBounds | None = None,
) -> Pruned:
    """Keep a share of the clustered rows: of each cluster those that are farthest from its centroid.

    Args:
        distance: float64 (n,), of each row to its centroid (see `centroid_distances`), in uid order.
        cluster: int32 (n,), the nearest centroid of each row.
        centroids: float16 (k, d).
        high, low: the halves of the uids; of equal distances the lower uid is kept.
        parent: bounds of the parent release.
    """
    wanted = top_count(len(cluster), settings.keep)
    digest = hashlib.sha256(np.ascontiguousarray(centroids).tobytes()).hexdigest()
    of = fingerprint("density", digest, settings.keep, settings.temperature)
    if parent is not None and parent.of == of and settings.tolerance > 0:
        keep = _within(parent, cluster, distance, high, low)
        if near(int(keep.sum()), wanted, settings.tolerance):
            return Pruned(keep, parent)
    sizes = np.bincount(cluster, minlength=len(centroids))
    complexity = mean_distances(cluster, distance, len(centroids)) * neighbour_distances(centroids)
    counts = kept_counts(complexity, sizes, wanted, settings.temperature)
    bounds = _bounds(cluster, distance, high, low, counts, complexity, of)
    return Pruned(_within(bounds, cluster, distance, high, low), bounds)


def centroid_distances(
    embeddings: np.ndarray, rows: np.ndarray, cluster: np.ndarray, centroids: np.ndarray
) -> np.ndarray:
    """1 - cosine of some rows and their centroids, float64 (n,), from exact products.

    Args:
        embeddings: float16 (m, d); may be a memory map.
        rows: int64 (n,), row numbers.
        cluster: int32 (n,), of these rows.
    """
    distance = np.empty(len(rows))
    wide = centroids.astype(np.float64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        vectors = np.asarray(embeddings[rows[block]]).astype(np.float64)
        distance[block] = 1.0 - np.einsum("nd,nd->n", vectors, wide[cluster[block]])
    return distance


def mean_distances(cluster: np.ndarray, distance: np.ndarray, clusters: int) -> np.ndarray:
    """d_intra: the mean distance of each cluster's rows to its centroid, (k,); 0 where it has none."""
    sizes = np.bincount(cluster, minlength=clusters)
    return np.asarray(np.bincount(cluster, distance, clusters) / np.maximum(sizes, 1))


def neighbour_distances(centroids: np.ndarray) -> np.ndarray:
    """d_inter: the mean of 1 - cosine of each centroid and the 20 nearest others, (k,); 0 if there is only one."""
    others = min(NEIGHBOURS, len(centroids) - 1)
    means = np.zeros(len(centroids))
    if others == 0:
        return means
    wide = centroids.astype(np.float64)
    for start in range(0, len(wide), _BLOCK_ROWS):
        block = 1.0 - wide[start : start + _BLOCK_ROWS] @ wide.T
        rows = np.arange(len(block))
        block[rows, start + rows] = np.inf  # a centroid is no neighbour of itself
        nearest = np.sort(np.partition(block, others - 1, axis=1)[:, :others], axis=1)
        means[start : start + len(block)] = nearest.mean(axis=1)
    return means


def kept_counts(complexity: np.ndarray, sizes: np.ndarray, wanted: int, temperature: float) -> np.ndarray:
    """How many rows each cluster keeps, int64 (k,), `wanted` in all.

    The quadratic program of the paper: with P the softmax of the complexities over the clusters that have rows, the
    counts nearest to P times `wanted` (least squares) that sum up to `wanted` and lie between 1 and the cluster's
    size. Its solution is P * wanted plus one number for all, cut to the bounds. Fractions are rounded by the largest
    remainder. Where fewer rows than clusters are wanted, a cluster may keep none.
    """
    counts = np.zeros(len(sizes), np.int64)
    used = np.flatnonzero(sizes)
    if not len(used):
        return counts
    scaled = complexity[used] / temperature
    shares = np.exp(scaled - scaled.max())
    ideal = shares / shares.sum() * wanted
    most = sizes[used].astype(np.float64)
    least = np.ones(len(used)) if wanted >= len(used) else np.zeros(len(used))
    exact = _project(ideal, least, most, wanted)
    whole = np.floor(exact + 1e-9)
    remainder = exact - whole
    missing = wanted - int(whole.sum())
    whole[np.argsort(-remainder, kind="stable")[:missing]] += 1
    counts[used] = whole
    return counts


def _project(ideal: np.ndarray, least: np.ndarray, most: np.ndarray, total: float) -> np.ndarray:
    """The point nearest to `ideal` within the bounds whose sum is `total`: cut(ideal + shift) for the right shift."""
    turns = np.unique(np.concatenate([least - ideal, most - ideal]))  # where a count meets a bound
    low, high = 0, len(turns) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if np.clip(ideal + turns[middle], least, most).sum() <= total:
            low = middle
        else:
            high = middle
    at_low, at_high = (np.clip(ideal + turns[at], least, most) for at in (low, high))
    rise = at_high.sum() - at_low.sum()
    part = (total - at_low.sum()) / rise if rise > 0 else 0.0
    return np.asarray(at_low + part * (at_high - at_low))  # the sum is linear between two turns


def _bounds(
    cluster: np.ndarray,
    distance: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    counts: np.ndarray,
    complexity: np.ndarray,
    of: str,
) -> DensityBounds:
    order = np.lexsort((low, high, -distance, cluster))
    starts = np.searchsorted(cluster[order], np.arange(len(counts)))
    last = order[np.minimum(starts + np.maximum(counts, 1) - 1, len(order) - 1)]
    ends = np.where(counts > 0, distance[last], _NOTHING)
    return DensityBounds(of, ends.tolist(), high[last].tolist(), low[last].tolist(), complexity.tolist())


def _within(
    bounds: DensityBounds, cluster: np.ndarray, distance: np.ndarray, high: np.ndarray, low: np.ndarray
) -> np.ndarray:
    """Which rows are no nearer to their centroid than the last one that is kept, bool (n,)."""
    least = np.array(bounds.distance)[cluster]
    last_high, last_low = (np.array(values, np.uint64)[cluster] for values in (bounds.high, bounds.low))
    before = (high < last_high) | ((high == last_high) & (low <= last_low))
    return np.asarray((distance > least) | ((distance == least) & before))
