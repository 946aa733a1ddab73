"""Concept matching and MetaCLIP's balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config.concept_list import read_concepts
from mmdata.errors import UserError
from mmdata.select.concepts import concept_rates, flatten, keep_probability, match_concepts, rarest

WORDS = st.sampled_from(["cat", "dog", "hot dog", "red", "a red cat", "Hund", "猫", "白猫"])


def matched(concepts: list[str], *captions: str | None) -> list[list[str]]:
    found = match_concepts(pl.Series("caption", captions, dtype=pl.String), concepts)
    return [[concepts[place] for place in places] for places in found.to_list()]


def test_concepts_match_whole_words_whatever_the_case_and_punctuation() -> None:
    found = matched(
        ["cat", "hot dog", "New York"], "A CAT!", "concatenate", "hot-dog, (cat)", "in new\tyork", "hot", None, ""
    )
    assert found == [["cat"], [], ["cat", "hot dog"], ["New York"], [], [], []]


def test_neighbouring_and_nested_concepts_are_all_found() -> None:
    assert matched(["cat", "dog", "cat dog", "dog cat"], "cat dog cat") == [["cat", "dog", "cat dog", "dog cat"]]


def test_chinese_concepts_match_within_text_without_spaces() -> None:
    assert matched(["猫", "白猫", "狗"], "一只白猫在草地上", "小狗") == [["猫", "白猫"], ["狗"]]


def test_concepts_that_only_differ_in_case_are_the_first_and_empty_ones_match_nothing() -> None:
    assert matched(["Cat", "cat", "!!"], "cat !!") == [["Cat"]]
    assert matched(["..."], "cat ...") == [[]]


@given(st.lists(WORDS, min_size=1, max_size=6, unique=True), st.lists(st.lists(WORDS).map(" ".join), max_size=10))
def test_matches_are_those_of_a_plain_search(concepts: list[str], captions: list[str]) -> None:
    def named(concept: str, caption: str) -> bool:
        padded = f" {caption.lower()} "
        return (concept if not concept.isascii() else f" {concept.lower()} ") in padded

    wanted = [[concept for concept in concepts if named(concept, caption)] for caption in captions]
    assert matched(concepts, *captions) == wanted


@given(st.lists(st.lists(st.integers(0, 4), unique=True), max_size=40), st.integers(1, 20))
def test_the_keep_probability_is_that_of_metaclip(lists: list[list[int]], cap: int) -> None:
    row, concept = flatten(pl.Series("concepts", lists, dtype=pl.List(pl.UInt32)))
    counts = np.bincount(concept, minlength=5)
    rates = concept_rates(counts, cap)
    assert rates.tolist() == [min(1.0, cap / max(sum(c in one for one in lists), 1)) for c in range(5)]
    wanted = [1 - np.prod([1 - rates[c] for c in one]) for one in lists]
    np.testing.assert_allclose(keep_probability(len(lists), row, concept, rates), wanted, atol=1e-12)


def test_a_caption_that_names_no_concept_is_never_kept_and_a_rare_one_always() -> None:
    row, concept = np.array([1, 1, 2]), np.array([0, 1, 0])
    probability = keep_probability(3, row, concept, np.array([0.25, 1.0]))
    assert probability.tolist() == [0.0, 1.0, pytest.approx(0.25)]


def test_the_rarest_concept_is_by_count_then_by_the_list() -> None:
    row, concept = np.array([0, 0, 2, 2]), np.array([1, 0, 2, 1])
    assert rarest(3, row, concept, np.array([5, 9, 9])).tolist() == [0, -1, 1]


def test_a_concept_list_is_read_without_comments_blanks_and_doubles(tmp_path: Path) -> None:
    path = tmp_path / "concepts.txt"
    path.write_text("# animals\ncat\n\n dog \ncat\n猫\n", encoding="utf-8")
    assert read_concepts(str(path)) == ["cat", "dog", "猫"]
    path.write_text("# nothing\n")
    for wrong in (path, tmp_path / "missing.txt"):
        with pytest.raises(UserError, match=wrong.name):
            read_concepts(str(wrong))
