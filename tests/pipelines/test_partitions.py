"""The partitions are the live parts of the sources."""

from __future__ import annotations

import dagster as dg

from pipelines.partitions import PARTITION_TAG, running_parts, sync_parts, why_tag
from tests.support.graph_runs import run_job
from tests.support.standin_stages import Small


def test_a_removed_file_takes_its_partition_along(small: Small, instance: dg.DagsterInstance) -> None:
    run_job(instance, "refresh_catalog")
    small.write("b.txt", "two dogs", "one cat", "a third row")
    run_job(instance, "refresh_catalog")
    assert sorted(instance.get_dynamic_partitions("parts")) == ["web-000000", "web-000002"]


def test_part_names_survive_a_second_sync(instance: dg.DagsterInstance) -> None:
    sync_parts(instance, ["web-000000", "web-000001"])
    sync_parts(instance, ["web-000001", "web-000002"])
    assert sorted(instance.get_dynamic_partitions("parts")) == ["web-000001", "web-000002"]


def test_only_runs_in_progress_hold_their_part(instance: dg.DagsterInstance) -> None:
    started, ended = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS
    for status in (started, ended):
        run = dg.DagsterRun(job_name="build_part", status=status, tags={PARTITION_TAG: status.value})
        instance.run_storage.add_run(run)
    assert running_parts(instance) == {started.value}


def test_a_reason_fits_into_a_tag() -> None:
    assert why_tag("rows: 猫 changed") == "rows: ? changed"
    assert len(why_tag("x" * 900)) == 200
