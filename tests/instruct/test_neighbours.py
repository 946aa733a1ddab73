"""Neighbour search: what is nearest, what is no neighbour, and the same answer each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mmdata.instruct import neighbours
from mmdata.instruct.caption_prints import caption_prints
from mmdata.instruct.neighbours import MIN_REFERENCE_COSINE, Captions, Limits, find_neighbours, limits_of

LOOSE = Limits(reference=MIN_REFERENCE_COSINE, caption=0.9, margin=0.0)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def captions_of(
    texts: Sequence[str], vectors: np.ndarray | None = None, languages: Sequence[int] | None = None
) -> Captions:
    """Captions whose text embeddings are those given, or are all orthogonal to each other and fit their own picture."""
    count = len(texts)
    return Captions(
        caption_prints(texts, count),
        np.empty((0, 0), np.float16) if vectors is None else vectors,
        np.full(count, -1) if vectors is None else np.arange(count),
        np.zeros(count, np.int64) if languages is None else np.array(languages),
    )


def paired(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and captions in a space in which each caption fits its own picture, and is unlike all others."""
    count = len(pictures)
    both = np.eye(count)
    return unit(np.hstack([pictures, both])), unit(np.hstack([np.zeros_like(pictures), both]))


def test_nearest_by_brute_force() -> None:
    pictures, texts = paired(np.random.default_rng(1).normal(size=(300, 8)) + 1)
    found = find_neighbours(pictures, captions_of([f"w{n} x{n} y{n}" for n in range(300)], texts), LOOSE, 0.999)
    wide = pictures.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosine = wide @ wide.T
    np.fill_diagonal(cosine, -1)
    cosine[cosine >= 0.999] = -1
    assert (found.negative == cosine.argmax(axis=1)).mean() > 0.99
    assert (found.reference == cosine.argmax(axis=1)).mean() > 0.99


def test_duplicates_and_same_captions_are_passed_over() -> None:
    pictures, texts = paired(20 * np.array([[1, 0, 0], [1, 0.001, 0], [1, 0.3, 0], [1, 0.6, 0]]))
    said = ["A cat!", "a bird in the sky", "a  CAT", "two dogs at play"]
    found = find_neighbours(pictures, captions_of(said, texts), LOOSE, duplicate_cosine=0.996)
    assert found.negative[0] == 3  # 1 is the same picture, 2 says the same
    assert found.reference[0] == 3


def test_a_paraphrase_by_words_is_no_negative_but_may_be_a_reference() -> None:
    pictures, texts = paired(np.array([[1, 0, 0], [1, 0.3, 0], [1, 0.5, 0]]))
    said = ["a black cat on the mat", "a black cat on a mat", "rain over hills"]
    found = find_neighbours(pictures, captions_of(said, texts), LOOSE, duplicate_cosine=0.99)
    assert found.negative[0] == 2
    assert found.reference[0] == 1


def test_a_paraphrase_in_other_words_is_no_negative() -> None:
    pictures, texts = paired(np.array([[1, 0, 0], [1, 0.3, 0], [1, 0.5, 0]]))
    texts[1] = texts[0]
    said = ["a black cat", "some dark kitty", "rain over hills"]
    assert find_neighbours(pictures, captions_of(said, texts), LOOSE, 0.99).negative[0] == 2


def test_a_caption_that_fits_the_picture_as_well_as_its_own_is_no_negative() -> None:
    pictures = unit(np.array([[1, 0, 1, 0], [1, 0.3, 0, 1], [1, 0.5, 0, 1]]))
    texts = unit(np.array([[0, 0, 1, 0], [0.1, 0, 1, -5], [0, 0, 0, 1]]))
    said = ["a harbour", "boats at rest", "rain over hills"]
    loose = find_neighbours(pictures, captions_of(said, texts), LOOSE, 0.99).negative[0]
    strict = find_neighbours(pictures, captions_of(said, texts), Limits(0.3, 0.9, margin=0.6), 0.99).negative[0]
    assert (loose, strict) == (1, 2)


def test_a_neighbour_has_a_caption_in_the_same_language() -> None:
    pictures, texts = paired(np.array([[1, 0, 0], [1, 0.3, 0], [1, 0.5, 0]]))
    captions = captions_of(["a cat", "ein Hund", "rain over hills"], texts, languages=[0, 1, 0])
    found = find_neighbours(pictures, captions, LOOSE, duplicate_cosine=0.99)
    assert list(found.negative) == [2, -1, 0]
    assert list(found.reference) == [2, -1, 0]


def test_captions_without_text_embeddings_have_no_negatives() -> None:
    pictures, _ = paired(np.array([[1, 0, 0], [1, 0.3, 0]]))
    found = find_neighbours(pictures, captions_of(["a cat", "rain over hills"]), LOOSE, duplicate_cosine=0.99)
    assert list(found.negative) == [-1, -1]
    assert list(found.reference) == [1, 0]


def test_unlike_pictures_are_no_reference() -> None:
    pictures, texts = paired(20 * np.array([[1.0, 0], [0, 1]]))
    found = find_neighbours(pictures, captions_of(["one", "two"], texts), LOOSE, duplicate_cosine=0.99)
    assert list(found.reference) == [-1, -1]
    assert list(found.negative) == [1, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_has_no_neighbour(count: int) -> None:
    pictures = np.ones((count, 4), np.float16)
    captions = captions_of(["a"] * count, pictures)
    limits = limits_of(pictures, captions, np.arange(count))
    assert list(find_neighbours(pictures, captions, limits, 0.9).negative) == [-1] * count


def test_the_limits_are_what_is_usual_among_random_pairs() -> None:
    numbers = np.random.default_rng(3)
    pictures, texts = unit(numbers.normal(size=(3000, 6)) + 0.8), unit(numbers.normal(size=(3000, 6)) + 0.4)
    captions = captions_of([f"w{n}" for n in range(3000)], texts)
    limits = limits_of(pictures, captions, numbers.permutation(3000))

    def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return (ours.astype(np.float64) @ theirs.astype(np.float64).T)[~np.eye(3000, dtype=bool)]

    assert limits.reference == pytest.approx(np.percentile(cosines(pictures, pictures), 99.5), abs=0.02)
    assert limits.caption == pytest.approx(np.percentile(cosines(texts, texts), 99), abs=0.03)
    assert limits.margin == pytest.approx(cosines(pictures, texts).std(), rel=0.05)


def test_above_the_limit_the_inverted_file_finds_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(2)
    centres = numbers.normal(size=(40, 16))
    pictures = unit(centres[numbers.integers(0, 40, 3000)] + 0.4 * numbers.normal(size=(3000, 16)))
    captions = captions_of([f"w{n} x{n}" for n in range(3000)])
    exact = find_neighbours(pictures, captions, LOOSE, 0.9999)
    monkeypatch.setattr(neighbours, "FLAT_LIMIT", 1000)
    inverted = find_neighbours(pictures, captions, LOOSE, 0.9999)
    assert (exact.reference == inverted.reference).mean() > 0.9
    again = find_neighbours(pictures, captions, LOOSE, 0.9999)
    assert (again.reference == inverted.reference).all()
