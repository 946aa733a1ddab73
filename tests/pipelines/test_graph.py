"""The graph on a real Dagster instance."""

from __future__ import annotations

import dagster as dg

from mmdata.engine import freshness
from mmdata.releases.draft import read_draft
from tests.support.graph_runs import build_all, failed_checks, materialised, run_job
from tests.support.standin_stages import Small


def test_catalogue_makes_partitions_and_the_graph_makes_a_release(small: Small, instance: dg.DagsterInstance) -> None:
    results = build_all(instance)
    assert list(results) == ["web-000000", "web-000001"]
    assert all(result.success for result in results.values())
    release = run_job(instance, "publish_release")
    assert release.success
    assert materialised(release) == {"selection", "shards", "instructions", "release", "report"}
    assert small.workspace.latest() in small.workspace.releases()
    assert not [p for p in freshness.plan_parts(small.corpus, small.workspace) if p.stale]


def test_a_broken_slice_fails_its_part_alone_and_the_rest_is_released(
    small: Small, instance: dg.DagsterInstance
) -> None:
    small.write("c.txt", "fine", "also fine", "boom", "after the boom")
    results = build_all(instance)
    assert [result.success for result in results.values()] == [True, True, False]
    broken = results["web-000002"]
    assert materialised(broken) == {"source_rows"}  # features was not even tried
    failure = broken.filter_events(lambda event: event.is_step_failure)[0].step_failure_data
    assert "slice 0001: the line went dead" in failure.user_failure_data.description
    assert small.workspace.slice_stamp("web-000002", "media", "0000") is not None  # the sound slice is kept
    release = run_job(instance, "publish_release")
    assert release.success
    assert set(read_draft(small.workspace).parts) == {"web-000000", "web-000001"}
    assert failed_checks(release) == {"no_failed_parts"}
