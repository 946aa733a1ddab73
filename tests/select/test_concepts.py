"""MetaCLIP's balance of concepts, and the caps of languages."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.select.concepts import concept_caps, concept_rates, flatten, keep_probability, rarest


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


def metaclip_2_cap(counts: list[int], english: list[int], cap: int) -> int:
    """The published formula: English's tail share p at `cap`, then the count at which another list's share is p."""
    p = sum(count for count in english if count < cap) / sum(english)
    ascending = sorted(counts)
    distance = [abs(sum(ascending[: at + 1]) / sum(ascending) - p) for at in range(len(ascending))]
    return max(ascending[distance.index(min(distance))], 1)


COUNTS = st.lists(st.integers(0, 500), min_size=1, max_size=12).filter(sum)


@given(COUNTS, COUNTS, COUNTS, st.integers(1, 600))
def test_the_cap_of_each_language_leaves_the_tail_share_that_english_has(
    english: list[int], german: list[int], chinese: list[int], cap: int
) -> None:
    lists = {"de": german, "en": english, "zh": chinese}
    counts, languages, start = np.array([c for one in lists.values() for c in one]), {}, 0
    for name, own in lists.items():
        languages[name] = range(start, start := start + len(own))
    caps = concept_caps(counts, cap, languages)
    assert set(caps[languages["en"]]) == {cap}
    assert set(caps[languages["de"]]) == {metaclip_2_cap(german, english, cap)}
    assert set(caps[languages["zh"]]) == {metaclip_2_cap(chinese, english, cap)}
    assert set(concept_caps(counts, cap, {})) == {cap}


def test_without_an_english_list_the_cap_is_for_the_first_and_a_language_without_matches_keeps_it() -> None:
    caps = concept_caps(np.array([100, 10, 50, 5, 0, 0]), 20, {"de": range(2), "fr": range(2, 4), "zh": range(4, 6)})
    assert caps.tolist() == [20, 20, 5, 5, 20, 20]
