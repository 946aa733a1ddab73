"""The funnel accounts for every row."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mmdata.report.funnel import funnel

REASONS = ("bad_row:no_url", "rule:min_side", "media:http_404", "features:decode", "filter:clip_score", "filter:words")
REASONS += ("duplicate:url", "balance:modality", "something:new")


@given(st.dictionaries(st.sampled_from(REASONS), st.integers(0, 1000)), st.integers(0, 500), st.integers(0, 99))
def test_what_is_left_and_what_is_lost_sum_to_the_rows(reasons: dict[str, int], kept: int, merged: int) -> None:
    uids = kept + sum(reasons.values())
    steps = funnel(uids + merged, uids, kept * 2, reasons)
    assert [step.left for step in steps[:2]] == [uids + merged, uids]
    assert steps[-2].left == kept
    assert steps[-1].left == kept * 2
    for before, after in pairwise(steps[:-1]):
        assert before.left - after.lost == after.left


def test_reasons_stand_at_their_own_step_most_frequent_first() -> None:
    steps = {step.name: step.reasons for step in funnel(30, 30, 9, {"media:timeout": 1, "media:http_404": 20})}
    assert steps["fetched"] == (("media:http_404", 20), ("media:timeout", 1))
    assert steps["good enough"] == ()
    assert "let in by the filter of their source" not in steps
    steps = {step.name: step.reasons for step in funnel(30, 30, 9, {"rule:min.similarity": 21})}
    assert steps["let in by the filter of their source"] == (("rule:min.similarity", 21),)
