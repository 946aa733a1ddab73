"""Reports of stages: counts are summed key by key, and an empty report has empty tables."""

from __future__ import annotations

from mmdata.stage import StageReport, add_counts, silent


def test_counts_are_summed_key_by_key_and_sorted() -> None:
    total = add_counts([{"rows": 2, "bad": 1}, {"rows": 3}, {}])
    assert list(total.items()) == [("bad", 1), ("rows", 5)]


def test_reports_do_not_share_their_tables() -> None:
    first, second = StageReport("rows", "web-000000"), StageReport("rows")
    assert first.counts == {}
    assert first.counts is not second.counts
    assert second.part is None


def test_silent_progress_accepts_a_call() -> None:
    silent("rows", 1, 2)
