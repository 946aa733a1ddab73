"""Whether a network tells held-out pairs from mismatches better than the scorer does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DRAWS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Mismatches:
    """Wrong captions for held-out pairs, as places of other pairs; -1 where there is none with another caption.

    Args:
        shuffled: int64 N, another pair drawn at random.
        hard: int64 N, the pair whose caption is nearest to the own one, by the scorer's vectors.
    """

    shuffled: np.ndarray
    hard: np.ndarray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Check:
    """What the check found.

    Args:
        pairs: number of held-out pairs.
        scorer, network: area under the ROC curve by kind of mismatch (`shuffled`, `hard`, `all`).
        gain: network minus scorer, likewise.
    """

    pairs: int
    scorer: dict[str, Estimate]
    network: dict[str, Estimate]
    gain: dict[str, Estimate]

    @property
    def beats_scorer(self) -> bool:
        """Whether the interval of the gain over all mismatches leaves zero out, above."""
        return self.gain["all"].low > 0

    def figures(self) -> tuple[dict[str, Estimate], ...]:
        """Of the scorer, of the network, and their difference."""
        return self.scorer, self.network, self.gain

    def to_json(self) -> dict[str, Any]:
        """Plain values; `beats_scorer` is what section `select` asks for."""
        return {"beats_scorer": self.beats_scorer, "confidence": CONFIDENCE, **asdict(self)}


def mismatches(text_ND: np.ndarray, captions: list[str], seed: int) -> Mismatches:
    """Wrong captions for N pairs.

    Args:
        text_ND: vectors of the captions by the scorer, of unit length.
    """
    distinct = np.unique(captions, return_inverse=True)[1]
    other = distinct[:, None] != distinct[None]
    cosines = np.where(other, text_ND @ text_ND.T, -np.inf)
    draws = np.where(other, np.random.default_rng(seed).random(other.shape), -np.inf)
    has_other = other.any(1)
    return Mismatches(*(np.where(has_other, scores.argmax(1), -1) for scores in (draws, cosines)))


def check(scorer: tuple[np.ndarray, np.ndarray], network: tuple[np.ndarray, np.ndarray], wrong: Mismatches) -> Check:
    """Compare the two on the same pairs and mismatches.

    The interval is that of a bootstrap over pairs (Efron 1979): a pair is drawn with its mismatches and with the scores
    of both models.

    Args:
        scorer, network: vectors N,D of pictures and of captions, of unit length.
    """
    usable = np.flatnonzero(wrong.hard >= 0)
    scores = {name: _scores(vectors, wrong, usable) for name, vectors in (("scorer", scorer), ("network", network))}
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(usable), (DRAWS, len(usable)))
    figures: dict[str, dict[str, Estimate]] = {"scorer": {}, "network": {}, "gain": {}}
    for kind, columns in (("shuffled", [1]), ("hard", [2]), ("all", [1, 2])):
        areas = {
            name: np.array([_auc(of[rows], columns) for rows in (np.arange(len(usable)), *drawn)])
            for name, of in scores.items()
        }
        areas["gain"] = areas["network"] - areas["scorer"]
        for name, values in areas.items():
            tail = (1 - CONFIDENCE) / 2
            low, high = np.quantile(values[1:], [tail, 1 - tail])
            figures[name][kind] = Estimate(float(values[0]), float(low), float(high))
    return Check(len(usable), figures["scorer"], figures["network"], figures["gain"])


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Chance that a right pair scores above a wrong one; ties count half (Mann and Whitney 1947)."""
    order = np.sort(wrong)
    below, not_above = np.searchsorted(order, right, "left"), np.searchsorted(order, right, "right")
    return float((below + not_above).mean() / (2 * len(wrong)))


def _scores(vectors: tuple[np.ndarray, np.ndarray], wrong: Mismatches, usable: np.ndarray) -> np.ndarray:
    """float N,3: cosine of each picture with its own, the shuffled and the hard caption."""
    image, text = vectors
    captions = (usable, wrong.shuffled[usable], wrong.hard[usable])
    return np.stack([(image[usable] * text[rows]).sum(1) for rows in captions], axis=1)


def _auc(scores_N3: np.ndarray, columns: list[int]) -> float:
    return auc(scores_N3[:, 0], scores_N3[:, columns].ravel())
