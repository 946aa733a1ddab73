"""What mmdata logs stands in the log of its Dagster run."""

from __future__ import annotations

import dagster as dg
import pytest

from mmdata.observe import logs
from pipelines.headless import build
from pipelines.instance import open_instance
from tests.support.standin_stages import Small


def test_slices_and_stages_stand_in_the_log_of_the_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "error")  # of the terminal; the run's log has its own
    build(small.config_path, parts=["web-000000"])
    with open_instance(small.workspace) as instance:
        runs = instance.get_runs(filters=dg.RunsFilter(job_name="build_part"))
        told = [one.user_message for run in runs for one in instance.all_logs(run.run_id) if one.dagster_event is None]
    assert any(line.startswith("stage begins  stage=media part=web-000000") for line in told)
    done = [line for line in told if line.startswith("slice done")]
    assert any("stage=features" in line and "slice=0000" in line and "rows=2" in line for line in done)
    assert any(line.startswith("stage done") and "slices_done=2" in line for line in told)
