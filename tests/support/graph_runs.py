"""Runs jobs of the graph on an instance, and reads what they did."""

from __future__ import annotations

import dagster as dg

from pipelines.definitions import defs


def run_job(instance: dg.DagsterInstance, job: str, part: str | None = None) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=part, raise_on_error=False)


def build_all(instance: dg.DagsterInstance) -> dict[str, dg.ExecuteInProcessResult]:
    assert run_job(instance, "refresh_catalog").success
    return {part: run_job(instance, "build_part", part) for part in instance.get_dynamic_partitions("parts")}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.get_asset_materialization_events()
    return {event.asset_key.to_user_string() for event in events if event.asset_key}
