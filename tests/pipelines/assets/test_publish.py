"""The assets from `shards` to `report` on a real Dagster instance."""

from __future__ import annotations

import dagster as dg

from tests.support.graph_runs import build_all, failed_checks, materialised, run_job
from tests.support.standin_stages import Small


def test_a_release_is_verified_published_and_reported(small: Small, instance: dg.DagsterInstance) -> None:
    build_all(instance)
    result = run_job(instance, "publish_release")
    assert materialised(result) == {"selection", "shards", "instructions", "release", "report"}
    assert failed_checks(result) == set()
    checks = {check.check_name for check in result.get_asset_check_evaluations()}
    assert {"shards_verify", "no_sudden_change"} <= checks
    assert small.workspace.latest() in small.workspace.releases()
