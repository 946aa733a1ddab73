"""Neighbour search: what is nearest, what is no neighbour, and the same answer each time."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.instruct import neighbours
from mmdata.instruct.neighbours import caption_prints, find_neighbours


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_nearest_by_brute_force() -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(300, 8)) + 1)
    captions = [f"w{n} x{n} y{n}" for n in range(300)]
    found = find_neighbours(vectors, caption_prints(captions, 300), duplicate_cosine=0.999)
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosine = wide @ wide.T
    np.fill_diagonal(cosine, -1)
    cosine[cosine >= 0.999] = -1
    assert (found.negative == cosine.argmax(axis=1)).mean() > 0.99
    assert (found.reference == cosine.argmax(axis=1)).mean() > 0.99


def test_duplicates_and_same_captions_are_passed_over() -> None:
    vectors = unit(np.array([[1, 0, 0], [1, 0.001, 0], [1, 0.3, 0], [1, 0.6, 0]]))
    prints = caption_prints(["A cat!", "a bird in the sky", "a  CAT", "two dogs at play"], 4)
    found = find_neighbours(vectors, prints, duplicate_cosine=0.99)
    assert found.negative[0] == 3  # 1 is the same picture, 2 says the same
    assert found.reference[0] == 3


def test_a_paraphrase_is_no_negative_but_may_be_a_reference() -> None:
    vectors = unit(np.array([[1, 0, 0], [1, 0.3, 0], [1, 0.5, 0]]))
    prints = caption_prints(["a black cat on the mat", "a black cat on a mat", "rain over hills"], 3)
    found = find_neighbours(vectors, prints, duplicate_cosine=0.99)
    assert found.negative[0] == 2
    assert found.reference[0] == 1


def test_unlike_pictures_are_no_reference() -> None:
    vectors = unit(np.array([[1, 0], [0, 1]]))
    found = find_neighbours(vectors, caption_prints(["one", "two"], 2), duplicate_cosine=0.99)
    assert list(found.reference) == [-1, -1]
    assert list(found.negative) == [1, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_has_no_neighbour(count: int) -> None:
    vectors = np.ones((count, 4), np.float16)
    assert list(find_neighbours(vectors, caption_prints(["a"] * count, count), 0.9).negative) == [-1] * count


def test_cjk_captions_compare_by_character() -> None:
    prints = caption_prints(["一只红色的猫", "一只红色的猫。", "两条蓝色的狗"], 3)
    assert prints.identity[0] == prints.identity[1] != prints.identity[2]


def test_above_the_limit_the_inverted_file_finds_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(2)
    centres = numbers.normal(size=(40, 16))
    vectors = unit(centres[numbers.integers(0, 40, 3000)] + 0.4 * numbers.normal(size=(3000, 16)))
    prints = caption_prints([f"w{n} x{n}" for n in range(3000)], 3000)
    exact = find_neighbours(vectors, prints, 0.9999)
    monkeypatch.setattr(neighbours, "FLAT_LIMIT", 1000)
    inverted = find_neighbours(vectors, prints, 0.9999)
    assert (exact.negative == inverted.negative).mean() > 0.9
    again = find_neighbours(vectors, prints, 0.9999)
    assert (again.negative == inverted.negative).all()
