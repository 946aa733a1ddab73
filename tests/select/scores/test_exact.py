"""Products that no rounding touches."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mmdata.select.scores.exact import GRID, cosines, on_grid, pair_cosines, row_sums
from tests.support.pair_vectors import unit_vectors


def exact_product(one: np.ndarray, other: np.ndarray) -> Fraction:
    return sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(one, other, strict=True)), Fraction(0))


def test_products_of_half_precision_vectors_are_exact() -> None:
    vectors, others = unit_vectors(5, 300, seed=1).astype(np.float64), unit_vectors(5, 300, seed=2).astype(np.float64)
    products = cosines(vectors, others.T)
    for row in range(5):
        for column in range(5):
            assert Fraction(float(products[row, column])) == exact_product(vectors[row], others[column])
    assert (pair_cosines(vectors, others) == np.diag(products)).all()


def test_products_with_a_matrix_on_the_grid_are_exact_and_the_grid_is_fine() -> None:
    vectors = unit_vectors(4, 200, seed=3).astype(np.float64)
    for scale in (1.0, 1e-3, 37.0):
        matrix = np.random.default_rng(4).normal(size=(200, 3)) * scale
        rounded = on_grid(matrix)
        longest = float(np.linalg.norm(matrix, axis=0).max())
        assert np.abs(rounded - matrix).max() <= GRID * longest * 2
        products = cosines(vectors, rounded)
        for row in range(4):
            for column in range(3):
                assert Fraction(float(products[row, column])) == exact_product(vectors[row], rounded[:, column])
    assert (on_grid(np.zeros((3, 2))) == 0).all()


def test_a_row_has_the_same_sum_alone_and_among_others() -> None:
    matrix = np.random.default_rng(5).normal(size=(40, 1000))
    sums = row_sums(matrix)
    assert all(row_sums(matrix[row : row + 1])[0] == sums[row] for row in range(40))
    assert (row_sums(np.asfortranarray(matrix)) == sums).all()
