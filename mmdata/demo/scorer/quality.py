"""How well a scorer tells matched captions from shuffled ones: AUC, and what keeping the best-scored share is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over shuffles, with their standard deviations.

    Args:
        rows: pairs measured.
        auc: chance that a matched pair scores above a shuffled one; 0.5 is guessing.
        clean_before: share of pairs whose caption is theirs after the shuffle.
        clean_after: the same among those kept.
        recall: share of the clean pairs that is kept.
    """

    rows: int
    auc: float
    auc_sd: float
    clean_before: float
    clean_after: float
    clean_after_sd: float
    recall: float


def measure(
    images_ND: np.ndarray,
    texts_ND: np.ndarray,
    captions: list[str],
    shuffled: float = 0.3,
    kept: float = 0.7,
    shuffles: int = 10,
    seed: int = 0,
) -> Quality:
    """Shuffle the captions of some rows among themselves, score all, keep the best share, and count.

    A shuffled row that was given the very same text counts as clean, and is no negative for the AUC, which compares
    all matched pairs with as many shuffled ones.

    Args:
        images_ND, texts_ND: unit length, float32 (rows, dim), row i of both is pair i.
        captions: the texts.
        shuffled, kept: shares of the rows.
        shuffles: repetitions with other draws.
    """
    rng = np.random.default_rng(seed)
    rows = len(captions)
    names = np.unique(np.array(captions, dtype=str), return_inverse=True)[1]
    cosines = images_ND @ texts_ND.T
    every = np.arange(rows)
    aucs, before, after, recalls = [], [], [], []
    for _ in range(shuffles):
        other = rng.permutation(rows)
        wrong = names[other] != names
        aucs.append(auc(cosines[every, every], cosines[every, other][wrong]))
        given = every.copy()
        chosen = rng.choice(rows, round(shuffled * rows), replace=False)
        given[chosen] = rng.permutation(chosen)
        clean = names[given] == names
        best = np.argsort(-cosines[every, given], kind="stable")[: round(kept * rows)]
        before.append(clean.mean())
        after.append(clean[best].mean())
        recalls.append(clean[best].sum() / max(1, clean.sum()))
    return Quality(
        rows=rows,
        auc=float(np.mean(aucs)),
        auc_sd=float(np.std(aucs)),
        clean_before=float(np.mean(before)),
        clean_after=float(np.mean(after)),
        clean_after_sd=float(np.std(after)),
        recall=float(np.mean(recalls)),
    )


def auc(matched: np.ndarray, shuffled: np.ndarray) -> float:
    """Area under the ROC curve: P(matched > shuffled) + P(tie) / 2. NaN if either is empty."""
    if not len(matched) or not len(shuffled):
        return float("nan")
    ranked = np.sort(shuffled)
    below = np.searchsorted(ranked, matched, side="left")
    ties = np.searchsorted(ranked, matched, side="right") - below
    return float((below + ties / 2).mean() / len(ranked))
