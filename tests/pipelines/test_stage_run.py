"""What surrounds a stage: which errors are tried again, and how progress reaches the log of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from mmdata.errors import DataError, PartFailed
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased
from pipelines import stage_run
from pipelines.stage_run import dagster_failure, interrupts_end_the_run, lease_checking_progress


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (DataError("a shard is cut"), False),
        (PartFailed("p", "media", {"0001": "boom"}, transient=False), False),
        (PartFailed("p", "media", {"0001": "the line went dead"}, transient=True), True),
    ],
)
def test_only_faults_that_may_pass_are_tried_again(error: Any, is_retried: bool) -> None:
    failure = dagster_failure(error)
    assert failure.allow_retries is is_retried
    if isinstance(error, PartFailed):
        (record,) = failure.metadata["failed slices"].value.records  # type: ignore[union-attr]
        assert record.data["slice"] == "0001"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), dg.DagsterExecutionInterruptedError()])
def test_an_interrupt_ends_the_run_without_a_retry(stop: BaseException) -> None:
    with pytest.raises(dg.Failure) as ended, interrupts_end_the_run():
        raise stop
    assert not ended.value.allow_retries


def test_without_a_watcher_progress_goes_into_the_log_now_and_then(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(stage_run, "time", SimpleNamespace(monotonic=lambda: now_s))
    lines: list[str] = []
    context: Any = type("Context", (), {"log": type("Log", (), {"info": staticmethod(lines.append)})})
    with leased(Workspace(str(tmp_path)), "release", "test") as lease:
        report = lease_checking_progress(context, lease)
        report("media", 10, 100)
        now_s = 20.0
        report("media", 60, 100)
    assert len(lines) == 1
    assert lines[0].startswith("media: 60 of 100, about ")
