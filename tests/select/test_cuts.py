"""Where a top fraction ends: exact counts, ties, and cuts that are used again."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmdata.select.cuts import cut_of, in_top_fraction, top_count

SCORES = st.lists(st.sampled_from([0.1, 0.2, 0.30000001, 0.5, -1.0, math.nan, math.inf]) | st.floats(-1, 1, width=32))


@given(SCORES, st.floats(0.001, 1))
def test_the_top_fraction_is_exact_and_ties_go_to_the_lower_uid(scores: list[float], fraction: float) -> None:
    values = np.array(scores, np.float32)
    scored = [(-score, row) for row, score in enumerate(values.tolist()) if math.isfinite(score)]
    kept = in_top_fraction(values, fraction)
    assert set(np.flatnonzero(kept)) == {row for _, row in sorted(scored)[: top_count(len(scored), fraction)]}


@given(st.integers(0, 10_000), st.integers(1, 1000))
def test_the_top_count_rounds_exact_decimals_up(rows: int, thousandths: int) -> None:
    assert top_count(rows, thousandths / 1000) == math.ceil(Fraction(thousandths, 1000) * rows)


def test_the_top_count_is_not_misled_by_binary_fractions() -> None:
    assert (top_count(100, 0.07), top_count(1, 0.3), top_count(10, 0.3), top_count(0, 0.5)) == (7, 1, 3, 0)


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, float("nan")]), max_size=40),
    st.sampled_from([0.01, 0.3, 0.5, 1.0]),
)
def test_a_cut_keeps_what_the_top_fraction_kept_ties_included(scores: list[float], fraction: float) -> None:
    given_scores = np.array(scores, np.float32)
    high = np.arange(len(scores), dtype=np.uint64) // 2 + np.uint64(2**63)  # two of each: the low half decides, too
    low = np.arange(len(scores), dtype=np.uint64) % 2
    top = in_top_fraction(given_scores, fraction)
    cut = cut_of(top, given_scores, high, low, "")
    if cut is None:
        assert not top.any()
    else:
        assert (cut.keeps(given_scores, high, low) == top).all()
