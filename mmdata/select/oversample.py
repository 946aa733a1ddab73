"""Repeats samples of rare concepts (repeat factor sampling, LVIS, Gupta et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from mmdata.config import Oversample
from mmdata.select.rates import keep_within_tolerance


def repeat_factors(counts: np.ndarray, rows: int, threshold: float, max_repeats: int) -> np.ndarray:
    """r = clip(sqrt(t / f), 1, r_max) for each concept, f being its share of the rows.

    Args:
        counts: rows of each concept; 0 gives 1.
        rows: number of all rows, with those without a concept.

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


def signature_factors(
    signatures: pl.Series, oversample: Oversample, known: Mapping[str, float] | None, tolerance: float
) -> dict[str, float]:
    """The repeat factor of each signature, by the same formula: a rare combination of modalities is a rare concept.

    Args:
        signatures: of the kept rows.
        known: the parent release's factors; one stays while it is within `tolerance` of the wanted one.
    """
    counted = signatures.rename("signature").value_counts(name="rows").sort("signature")
    names, counts = counted["signature"].to_list(), counted["rows"].to_numpy()
    if not oversample.signatures or oversample.max_repeats == 1 or oversample.threshold == 0:
        return dict.fromkeys(names, 1.0)
    threshold = cluster_threshold(oversample.threshold, len(names))
    factors = repeat_factors(counts, len(signatures), threshold, oversample.max_repeats)
    if known is not None:
        factors = keep_within_tolerance(factors, np.array([known.get(name, 1.0) for name in names]), tolerance)
    return dict(zip(names, factors.tolist(), strict=True))


def round_by_draw(factors: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whole repeats whose mean is the factor: rounded up where the draw is below the fraction. int32."""
    whole = np.floor(factors)
    return (whole + (draws < factors - whole)).astype(np.int32)
