"""The graph on a real Dagster instance."""

from __future__ import annotations

import dagster as dg

from mmdata.engine import freshness
from pipelines.definitions import defs
from pipelines.partitions import sync_parts
from tests.support.standin_stages import Small


def run(instance: dg.DagsterInstance, job: str, part: str | None = None) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=part, raise_on_error=False)


def build_all(instance: dg.DagsterInstance) -> dict[str, dg.ExecuteInProcessResult]:
    assert run(instance, "refresh_catalog").success
    return {part: run(instance, "build_part", part) for part in instance.get_dynamic_partitions("parts")}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.get_asset_materialization_events()
    return {event.asset_key.to_user_string() for event in events if event.asset_key}


def test_catalogue_makes_partitions_and_the_graph_makes_a_release(small: Small, instance: dg.DagsterInstance) -> None:
    results = build_all(instance)
    assert list(results) == ["web-000000", "web-000001"]
    assert all(result.success for result in results.values())
    release = run(instance, "publish_release")
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
    release = run(instance, "publish_release")
    assert release.success
    assert set(small.workspace.draft()["parts"]) == {"web-000000", "web-000001"}
    assert failed_checks(release) == {"no_failed_parts"}


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
    assert run(instance, "publish_release").success  # other runs are stopped by the stamp
    assert small.workspace.draft()["parts"] == ["web-000000", "web-000001"]


def test_blocking_check_stops_a_release_that_lost_a_row(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("c.txt", "lose me", "fine")
    build_all(instance)
    release = run(instance, "publish_release")
    assert not release.success
    assert failed_checks(release) == {"no_uid_lost"}
    assert materialised(release) == {"selection"}
    assert small.workspace.latest() is None


def test_blocking_check_stops_a_release_whose_clusters_straddle_the_splits(
    small: Small, instance: dg.DagsterInstance
) -> None:
    small.write("c.txt", "leak", "fine")
    build_all(instance)
    release = run(instance, "publish_release")
    assert failed_checks(release) == {"no_split_leakage"}
    assert small.workspace.latest() is None


def test_a_removed_file_takes_its_partition_along(small: Small, instance: dg.DagsterInstance) -> None:
    run(instance, "refresh_catalog")
    small.write("b.txt", "two dogs", "one cat", "a third row")
    run(instance, "refresh_catalog")
    assert sorted(instance.get_dynamic_partitions("parts")) == ["web-000000", "web-000002"]


def test_part_names_survive_a_second_sync(instance: dg.DagsterInstance) -> None:
    sync_parts(instance, ["web-000000", "web-000001"])
    sync_parts(instance, ["web-000001", "web-000002"])
    assert sorted(instance.get_dynamic_partitions("parts")) == ["web-000001", "web-000002"]


def test_materialisation_shows_figures_tables_and_pictures(small: Small, instance: dg.DagsterInstance) -> None:
    parts = build_all(instance)
    rows = parts["web-000000"].asset_materializations_for_node("source_rows")[0].metadata
    assert rows["dagster/partition_row_count"].value == 3
    assert "expected_sha256" in [column.name for column in rows["dagster/column_schema"].value.columns]
    chosen = run(instance, "publish_release").asset_materializations_for_node("selection")[0].metadata
    assert chosen["dagster/row_count"].value == 5
    assert chosen["scores"].value.startswith("![scores](data:image/png;base64,")
    assert [record.data for record in chosen["reasons"].value.records] == [{"reason": "media:gone", "rows": 1}]
