"""The graph on a real Dagster instance."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from mmdata.engine import freshness
from mmdata.releases.draft import read_draft
from tests.support.graph_runs import build_all, failed_checks, materialised, run_job
from tests.support.settled import make_settled, write_config
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


def test_a_run_that_changes_nothing_leaves_what_follows_in_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster compares data versions: by default each run has a new one, and all that follows looks out of date."""
    built = make_settled(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("MMDATA_CONFIG", str(tmp_path / "corpus.yaml"))
    assets = ("source_catalog", "selection", "shards", "instructions", "release", "report")
    instance = dg.DagsterInstance.ephemeral()

    def versions() -> dict[str, str]:
        assert run_job(instance, "refresh_catalog").success
        assert run_job(instance, "publish_release").success
        events = {name: instance.get_latest_materialization_event(dg.AssetKey(name)) for name in assets}
        tags = {name: event.asset_materialization.tags or {} for name, event in events.items()}  # type: ignore[union-attr]
        return {name: tags[name]["dagster/data_version"] for name in assets}

    first = versions()
    assert versions() == first
    assert first["selection"] == built.workspace.latest()
    write_config(tmp_path, seed=3)
    changed = {name for name, version in versions().items() if version != first[name]}
    assert changed >= {"selection", "release", "report"}
    assert "source_catalog" not in changed
