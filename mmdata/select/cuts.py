"""Where a top fraction or the pruning of a cluster ends: the row that is the last one in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Moments = Sequence[tuple[float, float]]
"""Mean and standard deviation of each of some scores."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The last row that a top fraction keeps. Rows with a higher score, or the same score and no higher uid, are kept.

    Args:
        score: as float64, which holds a float32 exactly.
        high, low: the halves of the row's uid.
        of: fingerprint of the scorer, the scores and the fraction; the cut is valid for these only.
        moments: mean and standard deviation of each score of the rule, where several are added up.
    """

    score: float
    high: int
    low: int
    of: str
    moments: Moments | None = None

    def keeps(self, scores: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Which rows are kept: bool, one a row; never true where the score is not finite."""
        before = (high < np.uint64(self.high)) | ((high == np.uint64(self.high)) & (low <= np.uint64(self.low)))
        return np.isfinite(scores) & ((scores > self.score) | ((scores == self.score) & before))


@dataclass(frozen=True, slots=True)
class DensityBounds:
    """The last row that density-based pruning keeps in each cluster, the farthest from the centroid first.

    Args:
        of: fingerprint of the clusters and the settings; the bounds are valid for these only.
        distance: 1 - cosine to the centroid, a number a cluster; above 2 where a cluster keeps nothing.
        high, low: the halves of the row's uid, which decide between equal distances.
        complexity: d_intra * d_inter of each cluster at the time.
    """

    of: str
    distance: Sequence[float]
    high: Sequence[int]
    low: Sequence[int]
    complexity: Sequence[float]


def top_count(rows: int, fraction: float) -> int:
    """How many of `rows` the top fraction keeps: the share of exact decimals, rounded up (0.07 of 100 is 7)."""
    return min(rows, math.ceil(Fraction(repr(fraction)) * rows))


def cut_of(
    top: np.ndarray, scores: np.ndarray, high: np.ndarray, low: np.ndarray, of: str, moments: Moments | None = None
) -> Cut | None:
    """The cut of a top fraction (see `in_top_fraction`); None if that is empty."""
    kept = np.flatnonzero(top)
    if not len(kept):
        return None
    least = scores[kept].min()
    last = kept[scores[kept] == least][-1]
    return Cut(float(least), int(high[last]), int(low[last]), of, moments)


def in_top_fraction(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Which rows are among the best `top_count(n, fraction)`, where n counts the rows with a finite score.

    Args:
        scores: float, in uid order; of equal scores the lower uid is taken.

    Returns:
        bool, as long as `scores`; never true where the score is not finite.
    """
    scored = np.isfinite(scores)
    keep = top_count(int(scored.sum()), fraction)
    if keep == 0:
        return np.zeros(len(scores), bool)
    threshold = -np.partition(-scores[scored], keep - 1)[keep - 1]
    top = scored & (scores > threshold)
    level = np.flatnonzero(scored & (scores == threshold))
    top[level[: keep - int(top.sum())]] = True
    return top
