"""Concepts by embedding: the nearest names, whatever the blocks and the order of rows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from mmdata.config import Score
from mmdata.errors import DataError
from mmdata.score.scorer import load_scorer
from mmdata.select import nearest_concepts as module
from mmdata.select.nearest_concepts import concept_vectors, concepts_column, nearest_concepts
from tests.support.selecting import points


def plainly(embeddings: np.ndarray, vectors: np.ndarray, top_k: int) -> list[list[int]]:
    """By exact fractions: the order of v·c / |c|, then of the list."""
    found = []
    for row in embeddings:
        keys = []
        for place, vector in enumerate(vectors):
            dot = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, vector, strict=True))
            keys.append((-float(dot) / np.linalg.norm(vector.astype(np.float64)), place))
        found.append(sorted(place for _, place in sorted(keys)[:top_k]))
    return found


@given(st.integers(0, 100), st.integers(1, 6))
@settings(max_examples=15)
def test_the_nearest_are_those_of_a_plain_exact_search(seed: int, top_k: int) -> None:
    embeddings, vectors = np.stack(points(12, seed=seed)), np.stack(points(30, seed=seed, spread=0.002))
    vectors[7] = vectors[3]  # a tie: the first of the list counts
    assert nearest_concepts(embeddings, vectors, top_k).tolist() == plainly(embeddings, vectors, top_k)


@given(st.permutations(range(50)), st.integers(1, 50))
@settings(max_examples=15)
def test_any_order_and_any_block_gives_each_row_the_same_concepts(order: list[int], block: int) -> None:
    embeddings, vectors = np.stack(points(50)), np.stack(points(40, seed=3, spread=0.01))
    whole = nearest_concepts(embeddings, vectors, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", block)
        assert (nearest_concepts(embeddings[order], vectors, 3) == whole[order]).all()


def test_more_concepts_than_there_are_means_all() -> None:
    vectors = np.stack(points(2))
    assert nearest_concepts(np.stack(points(3)), vectors, 5).tolist() == [[0, 1]] * 3


def test_the_column_is_null_where_there_is_no_embedding() -> None:
    column = concepts_column(np.array([1, 3]), np.array([[0, 2], [1, 4]], np.uint32), 5)
    assert column.to_list() == [None, [0, 2], None, [1, 4], None]


class StandIn:
    """A scorer whose texts are embedded by their length."""

    name, fingerprint = "stand-in", "0123"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        self.texts += texts
        return np.array([[np.cos(len(text)), np.sin(len(text))] for text in texts], np.float32)


def test_names_are_embedded_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = StandIn()
    monkeypatch.setattr("mmdata.score.scorer.load_scorer", lambda score: scorer)
    monkeypatch.setattr(module, "NAMES_PER_CALL", 2)
    names, folder = ["cat", "a dog", "okapi"], UPath(tmp_path / "scores")
    first = concept_vectors(names, Score(), "0123", folder)
    assert (first.dtype, first.shape) == (np.float16, (3, 2))
    assert np.array_equal(concept_vectors(names, Score(), "0123", folder), first)
    assert scorer.texts == names
    concept_vectors([*names, "gnu"], Score(), "0123", folder)
    assert scorer.texts[3:] == [*names, "gnu"], "another list is embedded anew"
    assert len(list(folder.iterdir())) == 1, "and takes the place of the earlier one"
    with pytest.raises(DataError, match=r"scored by 4567.*stand-in \(0123\).*Remedy"):
        concept_vectors(names, Score(), "4567", folder)


@pytest.mark.slow
def test_the_packaged_scorer_embeds_names_that_its_pictures_compare_with(tmp_path: Path) -> None:
    score = Score(model="demo")
    scorer = load_scorer(score)
    vectors = concept_vectors(["a cat", "a red car"], score, scorer.fingerprint, UPath(tmp_path))
    assert vectors.shape == (2, scorer.dim)
    assert np.linalg.norm(vectors.astype(np.float64), axis=1) == pytest.approx([1, 1], abs=1e-3)
    picture = scorer.embed_images(np.full((1, *scorer.preprocess.size, 3), 200, np.uint8)).astype(np.float16)
    cosines = picture.astype(np.float64) @ vectors.astype(np.float64).T
    assert nearest_concepts(picture, vectors, 1).tolist() == [[int(cosines[0].argmax())]]
