"""What every score from vectors is: a small class that scores a block of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

BLOCK_NUMBERS = 1 << 20
"""Products that are computed at a time: 8 MB of float64."""


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Ranges of rows, so many at a time that a matrix with these columns has a million numbers."""
    step = max(1, BLOCK_NUMBERS // columns)
    yield from (slice(start, start + step) for start in range(0, rows, step))


class VectorScore(Protocol):
    """A score that is computed from kept vectors.

    It is a pure function of the vectors of a pair, and of what it was made with.

    Attributes:
        fingerprint: of everything but the pair that decides the score; cached scores are kept under it.
        reads_texts: whether the vector of the caption is needed.
    """

    fingerprint: str
    reads_texts: bool

    def score(self, pictures: np.ndarray, texts: np.ndarray | None) -> np.ndarray:
        """Score some pairs.

        Args:
            pictures: float16 (n, d), unit vectors.
            texts: float16 (n, d), unit vectors of their captions; None where the score reads none.

        Returns:
            float32 (n,).
        """
        ...
