"""NormSim (Wang et al. 2024, arXiv 2405.19547): how near a picture is to a target set."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmdata.fingerprint import fingerprint
from mmdata.select.scores.exact import cosines, on_grid, row_sums
from mmdata.select.scores.targets import TargetVectors
from mmdata.select.scores.vector_score import blocks

_VERSION = 1
_TARGETS_AT_ONCE = 4096


class NormSim:
    """(sum_t |v.t|^p)^(1/p) over the pictures t of the target set; for p = infinity max_t |v.t|.

    For p = 2 it is sqrt(v' (sum_t t t') v), so that the size of the target set costs nothing.

    Args:
        target: the target set.
        p: the norm.
    """

    reads_texts = False

    def __init__(self, target: TargetVectors, p: Literal[2, "inf"]) -> None:
        self.fingerprint = fingerprint("norm-sim", _VERSION, p, target.digest)
        wide = target.pictures.astype(np.float64)
        self._count = len(wide)
        self._moment = on_grid(wide.T @ wide / len(wide)) if p == 2 else None
        self._targets = wide.T

    def score(self, pictures: np.ndarray, texts: np.ndarray | None) -> np.ndarray:
        """See `VectorScore.score`."""
        scores = np.empty(len(pictures), np.float32)
        columns = _TARGETS_AT_ONCE if self._moment is None else len(self._moment)
        for block in blocks(len(pictures), columns):
            wide = pictures[block].astype(np.float64)
            scores[block] = self._nearest(wide) if self._moment is None else self._norm(wide)
        return scores

    def _norm(self, pictures: np.ndarray) -> np.ndarray:
        assert self._moment is not None
        squares = row_sums(cosines(pictures, self._moment) * pictures)
        return np.asarray(np.sqrt(self._count * squares.clip(0.0)))

    def _nearest(self, pictures: np.ndarray) -> np.ndarray:
        nearest = np.zeros(len(pictures))
        for start in range(0, self._count, _TARGETS_AT_ONCE):
            products = np.abs(cosines(pictures, self._targets[:, start : start + _TARGETS_AT_ONCE]))
            np.maximum(nearest, products.max(axis=1), out=nearest)
        return nearest
