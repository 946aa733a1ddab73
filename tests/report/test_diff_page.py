"""The page that compares two releases."""

from __future__ import annotations

from mmdata.releases.diff import Diff, Scores, Shift
from mmdata.report.diff_page import NAMES_SHOWN, comparison_page

COUNTS = dict.fromkeys(
    (
        *("samples_before", "samples_after", "added", "dropped", "stayed", "copies_before", "copies_after"),
        *("repeats_up", "repeats_down", "shards_reused", "shards_new"),
    ),
    1234,
)
EVIL = "<script>alert(1)</script>"


def difference(scores: Scores, names: int = 1) -> Diff:
    shifts = tuple(Shift(f"{EVIL}{n}", 1, 2, 0.1, 0.2) for n in range(names))
    return Diff("a" * 16, "b" * 16, COUNTS, {EVIL: 3}, {"its part is gone": 4}, {"domain": shifts}, scores)


def test_text_from_outside_is_escaped_and_figures_are_shown() -> None:
    page = comparison_page(difference(Scores(None, None, None)), sudden=[f"{EVIL} grew"])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; grew" in page
    assert "1,234" in page and "its part is gone" in page
    assert "<svg" not in page


def test_scores_are_drawn_and_long_lists_are_cut() -> None:
    scores = Scores(0.2, 0.3, 0.05, (0.0, 0.5, 1.0), (3, 4), (4, 3))
    page = comparison_page(difference(scores, names=NAMES_SHOWN + 2))
    assert 'aria-label="Histograms of the scores before and after"' in page
    assert "and 2 more, which changed less" in page
