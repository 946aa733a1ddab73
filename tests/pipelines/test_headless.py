"""The graph without a server, on the instance that the UI opens too."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack, nullcontext
from typing import Any

import dagster as dg
import pytest

from mmdata.errors import DataError, UserError
from mmdata.releases.draft import read_draft
from mmdata.stage import StageReport
from mmdata.workspace.lease import LeaseLost, leased
from pipelines import headless
from pipelines.headless import build
from pipelines.instance import open_instance
from pipelines.partitions import PARTITION_TAG
from tests.support.standin_stages import Small


class Notes:
    """A watcher that writes everything down."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def plan(self, parts: Any) -> None:
        self.lines.append(("plan", *parts))

    def begin(self, part: str | None) -> None:
        self.lines.append(("begin", part))

    def started(self, stage: str, part: str | None) -> None:
        self.lines.append(("started", stage, part))

    def progress(self, stage: str, done: int, total: int) -> None:
        self.lines.append(("progress", stage, done, total))

    def finished(self, report: StageReport) -> None:
        self.lines.append(("finished", report.stage, report.part))

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        self.lines.append(("waits", stage, part, holder))

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self.lines.append(("failed", stage, part))


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance in memory: the one on disk takes seconds a build, most of it in fsync."""
    monkeypatch.setattr(headless, "open_instance", lambda workspace: dg.DagsterInstance.ephemeral())


def test_build_releases_and_a_second_build_has_nothing_to_do(small: Small) -> None:
    notes = Notes()
    first = build(small.config_path, watcher=notes)
    assert first.failed == {}
    assert first.release_id == small.workspace.latest()
    assert ("plan", "web-000000", "web-000001") in notes.lines
    assert ("progress", "media", 3, 3) in notes.lines
    again = Notes()
    assert build(small.config_path, watcher=again).release_id == first.release_id
    assert ("plan",) in again.lines
    with open_instance(small.workspace) as instance:  # the UI sees what was built
        assert len(instance.get_materialized_partitions(asset_key=dg.AssetKey("features"))) == 2


@pytest.mark.usefixtures("light")
def test_a_failing_part_does_not_stop_the_others(small: Small) -> None:
    small.write("a.txt", "boom")
    result = build(small.config_path)
    assert list(result.failed) == ["web-000000"]
    assert "the line went dead" in result.failed["web-000000"]
    assert result.release_id is not None
    assert read_draft(small.workspace).parts == ("web-000001",)


@pytest.mark.usefixtures("light")
def test_a_part_stopped_by_a_check_says_which(small: Small) -> None:
    small.write("a.txt", "gone")
    assert "download_share" in build(small.config_path).failed["web-000000"]


def test_a_part_with_a_run_that_holds_no_lease_is_built(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease decides who works on a part: a run in the queue of the UI finds the work done when its turn comes."""
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(headless, "open_instance", lambda workspace: nullcontext(instance))
        job = headless.defs.resolve_job_def("build_part")
        tags = {PARTITION_TAG: "web-000000"}
        instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        result = build(small.config_path)
    assert result.failed == {}
    assert read_draft(small.workspace).parts == ("web-000000", "web-000001")


@pytest.mark.usefixtures("light")
def test_only_the_parts_asked_for_are_worked_on(small: Small) -> None:
    result = build(small.config_path, parts=["web-000001"])
    assert {report.part for report in result.reports if report.part} == {"web-000001"}
    assert read_draft(small.workspace).parts == ("web-000001",)


@pytest.mark.usefixtures("light")
def test_weights_out_of_reach_end_the_build_before_anything_is_fetched(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = small.config_path.read_text()
    small.config_path.write_text(text.replace("model: demo", "model: 'hf-hub:owner/name'"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notes = Notes()
    with pytest.raises(UserError, match="not on this machine, and HF_HUB_OFFLINE is set"):
        build(small.config_path, watcher=notes)
    assert {stage for what, stage, *_ in notes.lines if what == "started"} == {"source_catalog"}


@pytest.mark.usefixtures("light")
def test_a_device_that_is_not_here_ends_the_build_before_anything_is_fetched(small: Small) -> None:
    text = small.config_path.read_text()
    small.config_path.write_text(text.replace("model: demo", "model: demo, device: 'cuda:77'"))
    with pytest.raises(UserError, match=r"score\.device: 'cuda:77' cannot be used here"):
        build(small.config_path)
    assert small.workspace.part_stamp("web-000000", "rows") is None


@pytest.mark.usefixtures("light")
def test_an_unknown_part_is_the_users_error(small: Small) -> None:
    with pytest.raises(UserError, match="web-99"):
        build(small.config_path, parts=["web-99"])


@pytest.mark.usefixtures("light")
def test_sources_only_stops_after_the_look_at_the_sources(small: Small) -> None:
    result = build(small.config_path, sources_only=True)
    assert [report.stage for report in result.reports] == ["source_catalog"]


@pytest.mark.usefixtures("light")
def test_a_release_that_cannot_be_made_is_told_with_the_failed_parts(small: Small) -> None:
    small.write("a.txt", "boom")
    small.write("b.txt", "boom too")
    result = build(small.config_path)
    assert result.release_id is None
    assert sorted(result.failed) == ["web-000000", "web-000001"]
    assert "no part is ready" in str(result.error)


@pytest.mark.usefixtures("light")
def test_sources_that_cannot_be_read_end_the_build(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any) -> StageReport:
        raise DataError("inbox is gone")

    monkeypatch.setattr(sys.modules["mmdata.sources.catalog"], "update_catalog", unreadable)
    with pytest.raises(DataError, match="inbox is gone"):
        build(small.config_path)


@pytest.mark.usefixtures("light")
def test_an_interrupt_ends_the_build_and_the_next_one_goes_on(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["mmdata.score.stage"]
    whole = module.score_part

    def interrupted(*_: Any, **__: Any) -> StageReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "score_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(small.config_path)
    monkeypatch.setattr(module, "score_part", whole)
    result = build(small.config_path)
    assert result.failed == {}
    reused = {r.stage: r.slices_reused for r in result.reports if r.part == "web-000000"}
    assert reused == {"rows": 2, "media": 2, "features": 0}


def test_a_part_that_another_build_works_on_is_waited_for(small: Small, light: None) -> None:
    with ExitStack() as stack:
        stack.enter_context(leased(small.workspace, "part-web-000001", "another build"))

        class FreesIt(Notes):
            def waits(self, stage: str, part: str | None, holder: str) -> None:
                super().waits(stage, part, holder)
                threading.Timer(0.1, stack.close).start()

        notes = FreesIt()
        found = build(small.config_path, watcher=notes)
    assert found.failed == {}
    (waited,) = [line for line in notes.lines if line[0] == "waits"]
    assert waited[:3] == ("waits", "rows", "web-000001")
    assert waited[3].startswith("another build, process")


def test_no_release_is_made_without_a_part_that_stays_held(small: Small, light: None) -> None:
    config = small.config_path.read_text(encoding="utf-8")
    small.config_path.write_text(f"{config}\nengine: {{wait_s: 0}}\n", encoding="utf-8")
    with leased(small.workspace, "part-web-000000", "another build"):
        result = build(small.config_path)
    assert list(result.failed) == ["web-000000"]
    assert "part-web-000000 is held by another build" in result.failed["web-000000"]
    assert (result.release_id, small.workspace.latest()) == (None, None)
    assert str(result.error).startswith("another build works on web-000000")
    assert small.workspace.part_stamp("web-000001", "features") is not None, "the free parts are built"
    with (
        leased(small.workspace, "release", "another build"),
        pytest.raises(UserError, match="release is held by another build"),
    ):
        build(small.config_path)
    whole = build(small.config_path)
    assert (whole.failed, whole.error) == ({}, None)
    assert read_draft(small.workspace).parts == ("web-000000", "web-000001")


def test_no_release_is_made_without_a_part_that_another_build_took_over(
    small: Small, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> StageReport:
        raise LeaseLost("the lease part-web-000000 is lost")

    monkeypatch.setattr(sys.modules["mmdata.score.stage"], "score_part", lost)
    result = build(small.config_path)
    assert sorted(result.failed) == ["web-000000", "web-000001"]
    assert (result.release_id, str(result.error)[:31]) == (None, "another build works on web-0000")
