"""The long tail: repeat the rare (repeat factor sampling, LVIS, Gupta et al. 2019)."""

from __future__ import annotations

import numpy as np


def repeat_factors(counts: np.ndarray, rows: int, threshold: float, max_repeats: int) -> np.ndarray:
    """r = clip(sqrt(t / f), 1, r_max) for each concept, f being its share of the rows.

    Args:
        counts: rows of each concept; 0 gives 1.
        rows: all rows, the ones without a concept too.

    Returns:
        float64, as long as `counts`.
    """
    share = counts / max(rows, 1)
    with np.errstate(divide="ignore"):
        factors = np.clip(np.sqrt(threshold / share), 1.0, max_repeats)
    return np.where(counts > 0, factors, 1.0)


def cluster_threshold(threshold: float, concepts: int) -> float:
    """The threshold where concepts are clusters, whose number follows from the corpus: at most their mean share.

    Without this bound a large corpus, cut into a thousand clusters of 0.1% each, would repeat everything.
    """
    return min(threshold, 1 / max(concepts, 1))


def round_by_draw(factors: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whole repeats whose mean is the factor: rounded up where the draw is below the fraction. int32."""
    whole = np.floor(factors)
    return (whole + (draws < factors - whole)).astype(np.int32)
