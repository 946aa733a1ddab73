"""Verdicts: reasons, leaders, and leaders that were dropped themselves."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.select.verdicts import STAYS, Verdicts


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_reasons_come_back_as_they_were_given(dtype: type[pl.DataType]) -> None:
    given_reasons = ["media:http_404", None, "bad_row:no_url", "media:http_404", None]
    verdicts = Verdicts(pl.Series(given_reasons, dtype=dtype))
    assert verdicts.reasons().to_list() == given_reasons
    assert verdicts.reasons(slice(1, 3)).to_list() == [None, "bad_row:no_url"]
    assert verdicts.kept().tolist() == [1, 4]
    assert verdicts.leaders.tolist() == [STAYS] * 5


def test_without_reasons_every_row_is_kept_until_it_is_dropped() -> None:
    verdicts = Verdicts(pl.Series([None] * 4, dtype=pl.String))
    assert verdicts.kept().tolist() == [0, 1, 2, 3]
    verdicts.drop(np.array([2]), "filter:language")
    verdicts.drop(np.array([0, 3]), "duplicate:url", np.array([1, 1]))
    verdicts.drop(np.array([], np.int64), "balance:modality")
    assert verdicts.kept().tolist() == [1]
    assert verdicts.reasons().to_list() == ["duplicate:url", None, "filter:language", "duplicate:url"]
    assert verdicts.leaders.tolist() == [1, STAYS, STAYS, 1]
    assert "balance:modality" not in verdicts.names


@given(st.lists(st.integers(0, 1000), max_size=40))
def test_settled_leaders_name_rows_that_are_no_duplicates(chosen: list[int]) -> None:
    # Row 0 stays; a later row follows a row before it, or stays where it would choose itself.
    before = [number % (row + 1) for row, number in enumerate(chosen)]
    verdicts = Verdicts(pl.Series([None] * len(before), dtype=pl.String))
    followers = np.array([row for row, leader in enumerate(before) if leader != row], np.int64)
    verdicts.drop(followers, "duplicate:url", np.array(before, np.int32)[followers])
    verdicts.settle()
    for row, leader in enumerate(before):
        last = leader
        while before[last] != last:
            last = before[last]
        assert verdicts.leaders[row] == (STAYS if leader == row else last)
