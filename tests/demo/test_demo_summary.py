"""The demo's summary, on a selection whose fate is known."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from mmdata.demo.demo_summary import judge, summarise
from mmdata.errors import UserError

COLUMNS: dict[str, Any] = {
    "uid": pl.String,
    "copies": pl.Int32,
    "keep": pl.Boolean,
    "reason": pl.String,
    "status": pl.String,
    "error": pl.String,
    "problem_or_error": pl.String,
    "planted": pl.String,
    "kind": pl.String,
    "of_uid": pl.String,
}


def frame(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def fetched(uid: str, planted: str, reason: str | None = None, of: str | None = None, copies: int = 1) -> tuple:
    return uid, copies, reason is None, reason, "success", None, None, planted, "object", of


def test_mismatches_and_good_pairs_are_counted_by_what_took_them():
    judgement = judge(
        frame(
            fetched("a", "clean", copies=2),
            fetched("b", "clean", "filter:top:s_clip_loss"),
            fetched("c", "rare", "balance:concept"),
            fetched("d", "mismatch", "filter:top:s_clip_loss"),
            fetched("e", "mismatch"),
            fetched("f", "mismatch", "duplicate:semantic"),
            fetched("g", "other_language", "filter:language"),
        ),
        rows_in=8,
    )
    assert judgement.mismatches == {
        "planted and fetched": 3,
        "caught by the score filter": 1,
        "dropped for another reason": 1,
        "left in the release": 1,
    }
    assert judgement.good_pairs == {
        "fetched": 3,
        "lost to the score filter": 1,
        "lost to other filters": 0,
        "thinned as duplicates": 0,
        "thinned by balance": 1,
        "kept": 1,
    }
    assert (judgement.rows_accounted_for, judgement.distinct, judgement.kept) == (8, 7, 2)
    assert (judgement.clean_share_before, judgement.clean_share_after) == (0.5, 0.5)
    assert judgement.filtered == {"top:s_clip_loss": 2, "language": 1}


def test_a_copy_is_caught_when_only_one_of_the_two_stays():
    judgement = judge(
        frame(
            fetched("a", "clean"),
            fetched("a2", "near_duplicate", "duplicate:phash", of="a"),
            fetched("b", "clean", "duplicate:phash"),
            fetched("b2", "near_duplicate", of="b"),
            fetched("c", "clean"),
            fetched("c2", "near_duplicate", of="c"),
            ("d", 1, False, "media:http_404", "failed_to_download", "http_404", "http_404", "clean", "object", None),
            fetched("d2", "near_duplicate", of="d"),  # its original was never fetched: no pair
        ),
        rows_in=8,
    )
    assert judgement.copies_caught["near_duplicate"] == "2 of 3"
    assert judgement.failed == {"http_404": 1}


def test_refusals_are_told_with_the_row_s_own_problem():
    judgement = judge(
        frame(
            ("a", 1, False, "bad_row:no_url", "refused", "bad_row", "no_url", "no_url", "object", None),
            ("b", 1, False, "media:robots", "refused", "robots", "robots", "opt_out", "object", None),
        ),
        rows_in=8,
    )
    assert judgement.refused == {"no_url": 1, "robots": 1}
    assert judgement.clean_share_before == 0.0


def test_no_release_yet_is_a_user_error(demo):
    with pytest.raises(UserError, match="nothing is released yet"):
        summarise(demo.folder)


def test_no_demo_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no demo here"):
        summarise(tmp_path)
