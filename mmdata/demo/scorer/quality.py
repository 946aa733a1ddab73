"""Measure how well a scorer tells matched captions from shuffled ones: AUC, and the gain of keeping the best pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over several shuffles, with standard deviations (`_sd`)."""

    rows: int  # number of pairs
    auc: float  # chance that a matched pair scores above a shuffled one; 0.5 is guessing
    auc_sd: float
    clean_before: float  # share of pairs that have their own caption after the shuffle
    clean_after: float  # the same share among the kept pairs
    clean_after_sd: float
    recall: float  # share of the clean pairs that are kept


def measure(
    images_ND: np.ndarray,
    texts_ND: np.ndarray,
    captions: list[str],
    shuffled: float = 0.3,
    kept: float = 0.7,
    shuffles: int = 10,
    seed: int = 0,
) -> Quality:
    """Shuffle the captions of some rows among themselves, score all rows, keep the best ones, and count.

    A shuffled row that gets the same text again counts as clean, and is not a negative of the AUC. The AUC compares
    all matched pairs with as many shuffled ones.

    Args:
        images_ND, texts_ND: float32 (rows, dim) of unit length; row i of both is pair i.
        captions: text of each row.
        shuffled, kept: shares of the rows.
        shuffles: repetitions with other random draws.
    """
    rng = np.random.default_rng(seed)
    rows = len(captions)
    text_ids = np.unique(np.array(captions, dtype=str), return_inverse=True)[1]
    cosines = images_ND @ texts_ND.T
    diagonal = np.arange(rows)
    aucs, before, after, recalls = [], [], [], []
    for _ in range(shuffles):
        other = rng.permutation(rows)
        is_wrong = text_ids[other] != text_ids
        aucs.append(auc(cosines[diagonal, diagonal], cosines[diagonal, other][is_wrong]))
        caption_of = diagonal.copy()
        to_shuffle = rng.choice(rows, round(shuffled * rows), replace=False)
        caption_of[to_shuffle] = rng.permutation(to_shuffle)
        clean = text_ids[caption_of] == text_ids
        best = np.argsort(-cosines[diagonal, caption_of], kind="stable")[: round(kept * rows)]
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
