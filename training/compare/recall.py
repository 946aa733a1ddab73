"""Ranks of held-out pairs by a model, and the recalls that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KS = (1, 5, 10)
MIN_QUERIES = 5  # concepts with fewer held-out pairs are left out of the means
HEADLINE = "both ways, recall@10"
_TIE = 1e-6
WAYS = ("image to text", "text to image")


def ranks(scores_QC: np.ndarray, right_QC: np.ndarray) -> np.ndarray:
    """The rank of each query's best right candidate; a wrong one with an equal score stands before it.

    Args:
        right_QC: bool, at least one a query.
    """
    best_Q1 = np.where(right_QC, scores_QC, -np.inf).max(1, keepdims=True)
    return 1 + ((scores_QC >= best_Q1 - _TIE) & ~right_QC).sum(1)


@dataclass(frozen=True, slots=True)
class Metric:
    """A recall: a mean over strata of the mean over their queries.

    Args:
        way: which row of the ranks; None: the mean of both.
        strata: int64 N, a query's stratum; negative: it does not count.
    """

    name: str
    k: int
    way: int | None
    strata: np.ndarray

    def hits(self, ranks_2N: np.ndarray) -> np.ndarray:
        """float64 N."""
        hit_2N = (ranks_2N <= self.k).astype(np.float64)
        return hit_2N.mean(0) if self.way is None else hit_2N[self.way]


def metrics(concepts: Sequence[str], trained_on: Counter[str]) -> list[Metric]:
    """Recall@K of each way and of both, and the means over concepts and over tail concepts of the recall of both.

    Args:
        concepts: of the held-out pairs.
        trained_on: concept -> pairs that could be trained on. The tail is the rarer half of the concepts that count.
    """
    held = Counter(concepts)
    counted = sorted((name for name in held if held[name] >= MIN_QUERIES), key=lambda name: (trained_on[name], name))
    place = {name: at for at, name in enumerate(counted)}
    everything = np.zeros(len(concepts), np.int64)
    own = np.array([place.get(name, -1) for name in concepts], np.int64)
    tail = np.where(own < len(counted) // 2, own, -1)
    recalls = [Metric(f"{WAYS[way]}, recall@{k}", k, way, everything) for way in range(2) for k in KS]
    means = (("both ways", everything), ("mean over concepts", own), ("mean over tail concepts", tail))
    for name, strata in means:
        if (strata >= 0).any():
            recalls += [Metric(f"{name}, recall@{k}", k, None, strata) for k in KS]
    return recalls
