"""Estimates of the time left, and durations in words."""

from __future__ import annotations

import pytest

from mmdata.inspect.progress import corpus_eta_s, duration, seconds_a_row, seconds_left, spread
from mmdata.workspace.layout import SliceStamp


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_slice_that_was_only_retried_says_nothing_of_a_whole_ones_time() -> None:
    whole = SliceStamp("f", "d", 100, numbers={"seconds": 50.0, "fetched": 90})
    retried = SliceStamp("f", "d", 100, numbers={"seconds": 1.0, "fetched": 3})
    text = SliceStamp("f", "d", 100, numbers={"seconds": 2.0, "fetched": 0})
    assert seconds_a_row([whole, retried]) == pytest.approx(0.5)
    assert seconds_a_row([text]) == pytest.approx(0.02)
    assert seconds_a_row([SliceStamp("f", "d", 100)]) is None


def test_the_pace_of_a_stage_leaves_out_what_was_there_before() -> None:
    assert seconds_left(done=600, total=1000, since=400, elapsed_s=10) == pytest.approx(20)
    assert seconds_left(done=400, total=1000, since=400, elapsed_s=10) is None


def test_the_estimate_names_what_it_leaves_out() -> None:
    rates = {("web", "media"): 0.1}
    left = {("web", "media"): 1000.0, ("web", "features"): 500.0, ("web", "rows"): 0.0}
    assert corpus_eta_s(left, rates, workers=2) == (pytest.approx(50.0), ["features of web"])  # type: ignore[arg-type]
    assert corpus_eta_s({}, rates, workers=2) == (0, [])  # type: ignore[arg-type]


def test_a_sample_is_spread_over_all_items() -> None:
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread([], 4) == []
