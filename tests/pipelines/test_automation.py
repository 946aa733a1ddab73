"""What the graph does by itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from mmdata.workspace.attempts import last_attempts
from mmdata.workspace.layout import Catalog, Part
from pipelines import automation
from pipelines.definitions import defs
from pipelines.partitions import PARTITION_TAG
from pipelines.resources import CorpusResource
from tests.support.standin_stages import Small


def tick(instance: dg.DagsterInstance) -> dg.SensorResult:
    context = dg.build_sensor_context(
        instance=instance, resources={"corpus": CorpusResource()}, repository_def=defs.get_repository_def()
    )
    result = automation.new_parts(context)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def run(instance: dg.DagsterInstance, job: str, part: str | None = None) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=part, raise_on_error=False)


def queue(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    """What the daemon does with a run request, short of starting it."""
    tags = {PARTITION_TAG: str(request.partition_key), "dagster/run_key": str(request.run_key)}
    here = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository")
    origin = RemoteJobOrigin(here, "build_part")
    job = defs.resolve_job_def("build_part")
    instance.create_run_for_job(job_def=job, tags=tags, status=status, remote_job_origin=origin)


def test_sensor_waits_for_a_catalogue(small: Small, instance: dg.DagsterInstance) -> None:
    result = tick(instance)
    assert asked(result) == []
    assert "materialise source_catalog" in str(result.skip_reason)


def test_sensor_asks_for_each_stale_part_up_to_the_cap(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("c.txt", "a third part")
    run(instance, "refresh_catalog")
    assert asked(tick(instance)) == ["web-000000", "web-000001"]  # max_parts_per_tick: 2


def test_the_catalogue_says_what_follows_and_each_part_run_says_why(small: Small, instance: dg.DagsterInstance) -> None:
    run(instance, "refresh_catalog")
    for part in ("web-000000", "web-000001"):
        run(instance, "build_part", part)
    small.write("b.txt", "two dogs", "one cat", "a third row")
    looked = run(instance, "refresh_catalog").asset_materializations_for_node("source_catalog")[0]
    told = str(looked.metadata["what this refresh implies"].value)
    assert "| rows | 1 | 2 | 3 rows |" in told
    assert "b.txt | new |" in told or "b.txt | changed |" in told
    (request,) = tick(instance).run_requests or []
    assert "rows: not finished" in request.tags["mmdata/why"]
    ran = run(instance, "build_part", "web-000002")
    whys = [ran.asset_materializations_for_node(n)[0].metadata["why it ran"].value for n in ("source_rows", "media")]
    assert [str(why).replace("\\", "") for why in whys] == ["rows: not finished", "media: not finished"]
    again = run(instance, "build_part", "web-000002").asset_materializations_for_node("media")[0]
    assert "all of it is up to date" in str(again.metadata["why it ran"].value)


def test_sensor_asks_once(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("c.txt", "a third part")
    run(instance, "refresh_catalog")
    first = tick(instance).run_requests or []
    queue(instance, first[0], dg.DagsterRunStatus.STARTED)  # still at it
    queue(instance, first[1], dg.DagsterRunStatus.FAILURE)  # its worker was killed
    assert asked(tick(instance)) == ["web-000002"]


def test_sensor_keeps_the_queue_short(small: Small, instance: dg.DagsterInstance) -> None:
    """The daemon reads every queued run each few seconds: 10,000 of them would keep it from anything else."""
    small.write("c.txt", "a third part")
    run(instance, "refresh_catalog")
    first = tick(instance).run_requests or []
    queue(instance, first[0], dg.DagsterRunStatus.QUEUED)
    assert asked(tick(instance)) == ["web-000001"]
    queue(instance, first[1], dg.DagsterRunStatus.QUEUED)
    assert asked(tick(instance)) == []


def test_a_tick_asks_the_database_as_often_for_many_parts_as_for_few(
    small: Small, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query a part was minutes at 10,000 parts, and a tick has one."""
    parts = {name: Part(name, "web", name, 0, 9, "0" * 64) for name in (f"web-{n:06d}" for n in range(150))}
    small.workspace.write_catalog(Catalog(parts=parts))
    text = small.config_path.read_text(encoding="utf-8").replace("max_parts_per_tick: 2", "max_parts_per_tick: 1000")
    small.config_path.write_text(text, encoding="utf-8")
    queries: list[str] = []
    for name in ("get_runs", "get_run_records", "get_runs_count", "get_latest_storage_id_by_partition"):
        monkeypatch.setattr(instance, name, counted(getattr(instance, name), queries))
    assert len(asked(tick(instance))) == 150
    assert len(queries) < 10


def counted(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return call


def test_sensor_is_quiet_once_all_is_built_and_wakes_for_a_changed_file(
    small: Small, instance: dg.DagsterInstance
) -> None:
    run(instance, "refresh_catalog")
    for part in ("web-000000", "web-000001"):
        assert run(instance, "build_part", part).success
    assert asked(tick(instance)) == []
    small.write("b.txt", "two dogs", "one cat", "a third row")
    run(instance, "refresh_catalog")
    assert asked(tick(instance)) == ["web-000002"]


def test_sensor_builds_back_what_changed_back(small: Small, instance: dg.DagsterInstance) -> None:
    """Settings of before, after others: the same need as at first, and not asked for in vain."""
    run(instance, "refresh_catalog")
    before = small.config_path.read_text(encoding="utf-8")
    keys = set()
    for text in (before, before + "download: {image_size: 64}\n", before, before + "download: {image_size: 64}\n"):
        small.config_path.write_text(text, encoding="utf-8")
        requests = tick(instance).run_requests or []
        assert [request.partition_key for request in requests] == ["web-000000", "web-000001"]
        keys |= {request.run_key for request in requests}
        for request in requests:
            queue(instance, request, dg.DagsterRunStatus.SUCCESS)
            assert run(instance, "build_part", str(request.partition_key)).success
        assert asked(tick(instance)) == []
    assert len(keys) == 8


def test_sensor_leaves_a_part_alone_that_failed_and_has_not_changed(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("a.txt", "boom")
    small.write("b.txt", "gone")
    run(instance, "refresh_catalog")
    for part in ("web-000000", "web-000001"):
        assert not run(instance, "build_part", part).success
    attempt = last_attempts(small.workspace, "web-000000")["media"]
    assert attempt.tries == 1
    assert "the line went dead" in str(attempt.error)
    assert asked(tick(instance)) == []


def test_sensor_asks_for_partitions_that_dagster_does_not_know(small: Small, instance: dg.DagsterInstance) -> None:
    run(instance, "refresh_catalog")
    instance.delete_dynamic_partition("parts", "web-000001")
    result = tick(instance)
    assert [list(request.partition_keys) for request in result.dynamic_partitions_requests or []] == [["web-000001"]]


def test_sensor_says_what_is_missing_without_a_corpus(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMDATA_CONFIG", raising=False)
    context = dg.build_sensor_context(instance=instance, resources={"corpus": CorpusResource()})
    result = automation.new_parts(context)
    assert isinstance(result, dg.SkipReason)
    assert "MMDATA_CONFIG" in str(result.skip_message)


@pytest.mark.parametrize(("schedule", "job"), [("refresh", "refresh_catalog"), ("release", "publish_release")])
def test_schedules_ask_for_their_job(schedule: str, job: str, instance: dg.DagsterInstance) -> None:
    found = defs.resolve_schedule_def(schedule)
    assert found.job_name == job
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 2, 5, tzinfo=UTC))
    assert len(found.evaluate_tick(context).run_requests or []) == 1


def test_a_scorer_that_does_not_exist_starts_no_run(small: Small, instance: dg.DagsterInstance) -> None:
    run(instance, "refresh_catalog")
    text = small.config_path.read_text()
    small.config_path.write_text(text.replace("model: demo", "model: ViT-B32"))
    context = dg.build_sensor_context(
        instance=instance, resources={"corpus": CorpusResource()}, repository_def=defs.get_repository_def()
    )
    skipped = automation.new_parts(context)
    assert isinstance(skipped, dg.SkipReason)
    assert "open_clip has no model 'ViT-B32'" in str(skipped.skip_message)


def test_weights_out_of_reach_start_no_run_and_fetch_nothing(
    small: Small, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(instance, "refresh_catalog")
    text = small.config_path.read_text()
    small.config_path.write_text(text.replace("model: demo", "model: 'hf-hub:owner/name'"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = tick(instance)
    assert asked(result) == []
    assert "HF_HUB_OFFLINE is set" in str(result.skip_reason)
    by_hand = run(instance, "build_part", "web-000000")
    assert not by_hand.success
    assert small.workspace.part_stamp("web-000000", "rows") is None
    assert small.workspace.part_stamp("web-000000", "media") is None
