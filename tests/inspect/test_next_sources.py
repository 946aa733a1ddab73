"""Source files that differ from the catalogue, by content and not by time."""

from __future__ import annotations

import os
from pathlib import Path

from tests.inspect.conftest import Nightly, stages


def test_a_touched_file_of_the_same_content_is_no_work(built: Nightly) -> None:
    first = built.latest
    os.utime(built.folder / "inbox/a.parquet", ns=(5, 5))
    plan = built.plan()
    assert (plan.files, plan.work, plan.forecast.verdict) == ([], [], "stands")
    assert built.refresh() == first


def test_other_content_of_the_same_size_is_seen_and_makes_only_its_parts_stale(built: Nightly) -> None:
    path = built.folder / "inbox/b.parquet"
    size = path.stat().st_size
    built.write("b.parquet", range(40, 60), caption="CAPTION number {}")
    assert path.stat().st_size == size
    plan = built.plan()
    assert [(Path(file.path).name, file.what) for file in plan.files] == [("b.parquet", "changed")]
    assert stages(plan)["web-000001"][0] == ("rows", 2, 20)
    assert list(stages(plan)) == ["web-000001"]
    assert plan.work[0].stages[0].why == "the content of its source file changed"
    assert [work.is_exact for work in plan.work[0].stages] == [True, False, False]
    assert plan.forecast.verdict == "depends"


def test_same_size_and_same_time_are_taken_for_the_same_content(built: Nightly) -> None:
    """The limit of not reading a file: who forges its time is believed. `--redo` reads it anew."""
    path = built.folder / "inbox/b.parquet"
    facts = path.stat()
    built.write("b.parquet", range(40, 60), caption="CAPTION number {}")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert built.plan().files == []


def test_a_removed_file_takes_its_part_out_of_the_release(built: Nightly) -> None:
    first = built.latest
    (built.folder / "inbox/b.parquet").unlink()
    plan = built.plan()
    assert [(file.what, file.rows) for file in plan.files] == [("removed", 20)]
    assert (plan.removed, plan.work) == (["web-000001"], [])
    assert plan.forecast.why == ("1 parts of it leave: web-000001",)
    foreseen = plan.forecast.release_id
    assert built.refresh() == foreseen != first
    assert built.ran == []


def test_removed_rows_leave_the_release_and_the_part_stays(built: Nightly) -> None:
    built.write("b.parquet", range(40, 50))
    plan = built.plan()
    assert stages(plan)["web-000001"][0] == ("rows", 1, 10)
    second = built.refresh()
    keys = set().union(*built.members(second).values())
    assert len(keys) == 50


def test_an_unreadable_file_is_named_and_holds_nothing_up(built: Nightly) -> None:
    first = built.latest
    (built.folder / "inbox/b.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    plan = built.plan()
    assert [(file.what, bool(file.note)) for file in plan.files] == [("unreadable", True)]
    assert (plan.work, plan.removed, plan.forecast.verdict) == ([], [], "stands")
    assert built.refresh() == first


def test_a_renamed_file_is_no_work(built: Nightly) -> None:
    (built.folder / "inbox/b.parquet").rename(built.folder / "inbox/z.parquet")
    plan = built.plan()
    assert [(file.what, Path(file.note).name) for file in plan.files] == [("renamed", "b.parquet")]
    assert (plan.work, plan.removed, plan.forecast.verdict) == ([], [], "stands")
