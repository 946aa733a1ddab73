"""Products that no rounding touches, so that a score does not depend on the batch, the BLAS or the number of threads.

Numbers of half precision are multiples of 2^-24. The product of two is a multiple of 2^-48, and a sum of such products
that stays below 32 fits the 53 bits of a float64 exactly, in whatever order a machine adds it up.
"""

from __future__ import annotations

import numpy as np

GRID = 2.0**-28
"""Step of the numbers that half-precision unit vectors are multiplied with: the products are multiples of 2^-52."""

DOUBT = 1e-4
"""A float32 product of half-precision unit vectors errs by less; within it of a bound, the exact product decides."""


def cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Products of all pairs, exact.

    Args:
        vectors: float64 (n, d), of half-precision numbers and unit length.
        others: the same, (d, m).

    Returns:
        float64 (n, m).
    """
    return np.asarray(vectors @ others)


def pair_cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Products of the rows of two matrices (n, d), exact, float64 (n,)."""
    return np.asarray(np.einsum("nd,nd->n", vectors, others))


def on_grid(matrix: np.ndarray) -> np.ndarray:
    """A matrix (d, m) whose products with half-precision unit vectors are exact.

    The numbers are rounded to multiples of 2^-28 of the power of two that no column's length exceeds: by 4e-9 of it.
    """
    longest = float(np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=0)).max(initial=0.0))
    step = GRID * (2.0 ** np.ceil(np.log2(longest)) if longest > 0 else 1.0)
    return np.asarray(np.rint(matrix.astype(np.float64) / step) * step)


def row_sums(matrix: np.ndarray) -> np.ndarray:
    """Sums of the rows (n,), each added up in the same order whatever the number of rows."""
    return np.asarray(np.ascontiguousarray(matrix).sum(axis=1))
