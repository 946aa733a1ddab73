"""Blocking checks stop the run that they belong to, and nothing else."""

from __future__ import annotations

import dagster as dg

from mmdata.releases.draft import read_draft
from tests.support.graph_runs import build_all, failed_checks, materialised, run_job
from tests.support.standin_stages import Small


def test_blocking_check_stops_a_part_that_could_not_be_fetched(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("c.txt", "gone", "gone too")
    result = build_all(instance)["web-000002"]
    assert not result.success
    assert failed_checks(result) == {"download_share"}
    assert materialised(result) == {"source_rows", "media"}


def test_blocking_check_stops_scores_that_are_no_numbers(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("c.txt", "a nan", "fine")
    result = build_all(instance)["web-000002"]
    assert not result.success
    assert failed_checks(result) == {"scores_sound"}
    assert run_job(instance, "publish_release").success  # other runs are stopped by the stamp
    assert read_draft(small.workspace).parts == (
        "web-000000",
        "web-000001",
    )
