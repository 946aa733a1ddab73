"""What a difference between two arms is worth: an interval from seeds and from held-out samples, and a word for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Word = Literal["better", "worse", "no difference seen"]
WORDS: tuple[Word, ...] = ("better", "worse", "no difference seen")
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """One arm's mean minus another's.

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
    """Ours minus theirs. Row s of both is of the same seed, column n of both of the same held-out sample.

    Seeds and held-out samples are crossed random effects. The variance is the sum of two terms: that of the mean over
    seeds of the paired differences, and that of the mean over held-out samples (within their strata) of the sample-wise
    differences, seeds averaged. What is neither is in both terms, so the interval is rather too wide than too narrow.
    Degrees of freedom are Satterthwaite's (1946). Which pairs are in an arm is given: the interval is about these two
    sets, not about others that might be drawn in the same way.

    Raises ValueError: the shapes differ.
    """
    if ours_SN.shape != theirs_SN.shape:
        raise ValueError(f"hits {ours_SN.shape} and {theirs_SN.shape} are not of the same seeds and samples")
    gain_SN = ours_SN - theirs_SN
    gains = seed_means(gain_SN, strata_N)
    mean = float(gains.mean())
    if len(gains) < 2:
        return Difference(mean, -math.inf, math.inf)
    parts = [(float(gains.var(ddof=1)) / len(gains), len(gains) - 1), *_sampling(gain_SN.mean(0), strata_N)]
    half = _half_width(parts)
    return Difference(mean, mean - half, mean + half)


def _sampling(gain_N: np.ndarray, strata_N: np.ndarray) -> list[tuple[float, int]]:
    """Variance and degrees of freedom that each stratum brings to the mean over strata."""
    strata = [gain_N[strata_N == stratum] for stratum in np.unique(strata_N[strata_N >= 0])]
    return [(float(d.var(ddof=1)) / len(d) / len(strata) ** 2, len(d) - 1) for d in strata if len(d) > 1]


def _half_width(parts: Sequence[tuple[float, int]]) -> float:
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return central_t(CONFIDENCE, freedom) * math.sqrt(variance)


def central_t(confidence: float, freedom: float) -> float:
    """The t within which Student's distribution has this share of its mass; `freedom` is at least 1.

    With t = sqrt(freedom) tan(u) its density is cos(u)^(freedom - 1), which is integrated numerically.
    """
    widest = min(math.pi / 2, 12 / math.sqrt(freedom))  # beyond lies less mass than float64 can add
    u = np.linspace(0.0, widest, 20_001)
    density = np.cos(u) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence * mass[-1], mass, u)))


def tally(words: Sequence[Word]) -> str:
    """How often each word was said, in one line."""
    return f"{', '.join(f'{word} in {words.count(word)}' for word in WORDS)} of {len(words)} metrics"
