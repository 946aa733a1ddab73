"""VAS, the variance alignment score (Wang et al. 2024, arXiv 2402.02055)."""

from __future__ import annotations

import numpy as np

from mmdata.fingerprint import fingerprint
from mmdata.select.scores.exact import cosines, on_grid, row_sums
from mmdata.select.scores.vector_score import blocks

_VERSION = 1


class VarianceAlignment:
    """v' S v with S the mean of t t' over the target set; or v' S w with the cross-moment, w the caption of v.

    Args:
        pictures: float16 (n, d), unit vectors of the target set.
        texts: of its captions, for the cross-moment: S is then the mean of v_j w_j'; None: pictures only.
        of: identifies the target set.
    """

    def __init__(self, pictures: np.ndarray, texts: np.ndarray | None, of: str) -> None:
        self.reads_texts = texts is not None
        self.fingerprint = fingerprint("vas", _VERSION, self.reads_texts, of)
        others = pictures if texts is None else texts
        self._moment = on_grid(pictures.T.astype(np.float64) @ others.astype(np.float64) / len(pictures))

    def score(self, pictures: np.ndarray, texts: np.ndarray | None) -> np.ndarray:
        """See `VectorScore.score`."""
        others = pictures if texts is None or not self.reads_texts else texts
        scores = np.empty(len(pictures), np.float32)
        for block in blocks(len(pictures), len(self._moment)):
            aligned = cosines(pictures[block].astype(np.float64), self._moment)
            scores[block] = row_sums(aligned * others[block].astype(np.float64))
        return scores
