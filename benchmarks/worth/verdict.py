"""What a difference between two sides is worth: an interval from seeds and from held-out samples, and a word for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Word = Literal["better", "worse", "no difference seen"]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """One side's mean minus the other's.

    Args:
        low, high: the interval of CONFIDENCE; infinite where one seed says nothing of its spread.
    """

    mean: float
    low: float
    high: float

    @property
    def word(self) -> Word:
        """Better or worse only where the interval leaves zero out."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference seen"


def stratified_mean(values_N: np.ndarray, strata_N: np.ndarray) -> float:
    """Mean over strata of their means; negative strata do not count."""
    return float(np.mean([values_N[strata_N == stratum].mean() for stratum in np.unique(strata_N[strata_N >= 0])]))


def seed_means(hits_SN: np.ndarray, strata_N: np.ndarray) -> np.ndarray:
    """float64 S: the metric of each seed."""
    return np.array([stratified_mean(hits_N, strata_N) for hits_N in hits_SN])


def difference(ours_SN: np.ndarray, theirs_SN: np.ndarray, strata_N: np.ndarray) -> Difference:
    """Ours minus theirs, on the same held-out samples.

    The variance is that of either side's mean over seeds, and that of the sample-wise differences (seeds averaged) over
    the held-out samples within their strata; the degrees of freedom are Welch's and Satterthwaite's. The seeds' part is
    in both terms to some extent, so the interval is rather too wide than too narrow.
    """
    ours, theirs = seed_means(ours_SN, strata_N), seed_means(theirs_SN, strata_N)
    mean = float(ours.mean() - theirs.mean())
    if min(len(ours), len(theirs)) < 2:
        return Difference(mean, -math.inf, math.inf)
    parts = [(float(side.var(ddof=1)) / len(side), len(side) - 1) for side in (ours, theirs)]
    parts += _sampling(ours_SN.mean(0) - theirs_SN.mean(0), strata_N)
    half = _half_width(parts)
    return Difference(mean, mean - half, mean + half)


def _sampling(differences_N: np.ndarray, strata_N: np.ndarray) -> list[tuple[float, int]]:
    """Variance and degrees of freedom that each stratum brings to the mean over strata."""
    strata = [differences_N[strata_N == stratum] for stratum in np.unique(strata_N[strata_N >= 0])]
    return [(float(d.var(ddof=1)) / len(d) / len(strata) ** 2, len(d) - 1) for d in strata if len(d) > 1]


def _half_width(parts: Sequence[tuple[float, int]]) -> float:
    from scipy.stats import t  # type: ignore[import-untyped]

    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)


def tally(words: Sequence[Word]) -> str:
    """How often each word was said, in one line."""
    said = [f"{word} in {words.count(word)}" for word in ("better", "worse", "no difference seen")]
    return f"{', '.join(said)} of {len(words)} metrics"
