"""The rows stage: what a killed or repeated run reads, and what it refuses to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.engine.freshness import plan_parts
from mmdata.errors import DataError, UserError
from mmdata.sources.stage import slice_spans
from mmdata.workspace.layout import Part


def test_a_killed_run_goes_on_where_it_stopped(inbox):
    inbox.source = {"slice_rows": 10}
    inbox.pairs("a.parquet", 95)
    whole = inbox.rows()
    folder = inbox.folder / "workspace/parts/web-000000"
    (folder / "rows.json").unlink()  # killed before the part's stamp
    (folder / "rows/0003.json").unlink()  # and, at another time, between a slice's table and its stamp
    (folder / "rows/0007.json").unlink()
    (folder / "rows/0008.parquet").unlink()
    kept = (folder / "rows/0004.parquet").stat().st_mtime_ns
    report = inbox.read("web-000000")
    assert (report.slices_done, report.slices_reused) == (3, 7)
    assert (folder / "rows/0004.parquet").stat().st_mtime_ns == kept
    assert inbox.rows(["web-000000"]) == whole


def test_a_fresh_part_is_not_read_again(inbox):
    path = inbox.pairs("a.parquet", 30)
    inbox.rows()
    path.unlink()  # so that any look at it would fail
    report = inbox.read("web-000000")
    assert (report.slices_done, report.slices_reused) == (0, 1)
    assert report.counts["rows"] == 30


def test_appended_rows_leave_the_digests_of_the_slices_before(inbox):
    inbox.source = {"slice_rows": 10}
    inbox.pairs("a.parquet", 20)
    inbox.rows()
    before = inbox.workspace.slice_stamp("web-000000", "rows", "0000")
    inbox.pairs("a.parquet", 30)
    inbox.rows()
    after = inbox.workspace.slice_stamp("web-000000", "rows", "0000")
    assert before is not None
    assert after is not None
    assert before.fingerprint != after.fingerprint
    assert before.digest == after.digest  # so nothing is fetched again
    assert all(plan.stale == ("media", "features") for plan in plan_parts(inbox.corpus, inbox.workspace))


def test_a_file_that_changed_since_it_was_catalogued_is_not_read(inbox):
    inbox.pairs("a.parquet", 5)
    inbox.look()
    inbox.pairs("a.parquet", 6)
    with pytest.raises(DataError, match=r"a\.parquet: has changed since.*Remedy: `mmdata build`"):
        inbox.read("web-000000")
    (inbox.folder / "inbox/a.parquet").unlink()
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        inbox.read("web-000000")


def test_an_unknown_part_is_a_user_error(inbox):
    inbox.pairs("a.parquet", 5)
    inbox.look()
    with pytest.raises(UserError, match="no part 'web-000009'"):
        inbox.read("web-000009")


def test_progress_ends_at_the_part_s_rows(inbox):
    inbox.source = {"slice_rows": 10}
    inbox.pairs("a.parquet", 25)
    inbox.look()
    from mmdata.takedown.read_part import read_part

    seen: list[tuple[str, int, int]] = []
    read_part(inbox.corpus, inbox.workspace, "web-000000", lambda *step: seen.append(step))
    assert seen == [("rows", 10, 25), ("rows", 20, 25), ("rows", 25, 25), ("rows", 25, 25)]


def test_slices_cover_the_part(inbox):
    part = Part("web-000001", "web", str(Path("a")), 20, 45, "d")
    assert slice_spans(part, 10) == {"0000": (20, 30), "0001": (30, 40), "0002": (40, 45)}
