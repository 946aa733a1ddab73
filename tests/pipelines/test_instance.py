"""The Dagster instance of a workspace."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from mmdata.workspace.layout import Workspace
from pipelines import instance as pipelines_instance
from pipelines.definitions import defs
from pipelines.home import settings_template
from pipelines.instance import HOST_TAG, PID_TAG, delete_runs, open_instance
from pipelines.resources import POOLS
from tests.support.standin_stages import Small

NEEDLE = b"a caption that somebody wants forgotten"
KEPT = b"a caption of another part"


def test_dagster_takes_our_settings_and_the_pools_have_their_sizes(small: Small) -> None:
    with open_instance(small.workspace) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()} == POOLS


def test_a_pool_size_that_a_person_changed_is_left_alone(small: Small) -> None:
    with open_instance(small.workspace) as instance:
        instance.event_log_storage.set_concurrency_slots("download", 7)
    with open_instance(small.workspace) as instance:
        assert {p.name: p.limit for p in instance.event_log_storage.get_pool_limits()}["download"] == 7


def test_every_pool_that_an_asset_uses_is_sized() -> None:
    used = {pool for asset in defs.resolve_asset_graph().assets_defs for pool in asset.op.pools}
    assert used == set(POOLS)


def test_postgres_settings_are_what_dagster_expects(tmp_path: Path) -> None:
    ours = yaml.safe_load((settings_template().parent / "postgres.yaml").read_text())
    assert ours["storage"]["postgres"]["postgres_db"]["scheme"] == "postgresql+psycopg2"
    text = settings_template().read_text() + (settings_template().parent / "postgres.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text)
    settings, _ = dagster_instance_config(str(tmp_path))  # raises where the schema disagrees
    assert "postgres" in settings["storage"]


def test_a_killed_build_holds_no_slot_and_its_run_is_closed(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with open_instance(small.workspace) as instance:
        tags = {HOST_TAG: pipelines_instance.socket.gethostname(), PID_TAG: str(process.pid)}
        job = defs.resolve_job_def("publish_release")
        run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert instance.event_log_storage.claim_concurrency_slot("publish", run.run_id, "selection").is_claimed
    with open_instance(small.workspace) as instance:
        after = instance.get_run_by_id(run.run_id)
        assert after is not None
        assert after.status is dg.DagsterRunStatus.FAILURE
        assert not instance.event_log_storage.get_concurrency_info("publish").claimed_slots


def test_runs_that_showed_a_sample_are_gone_from_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    workspace = Workspace(str(tmp_path / "workspace"))

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["web-000000", "web-000001"]))
    def features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        text = NEEDLE if context.partition_key == "web-000000" else KEPT
        return dg.MaterializeResult(metadata={"samples": text.decode()})

    with open_instance(workspace) as instance:
        for part in ("web-000001", "web-000000"):
            dg.materialize([features], partition_key=part, instance=instance)
    assert holders(tmp_path, NEEDLE)
    assert delete_runs(workspace, {"web-000000"}) == 1
    assert holders(tmp_path, NEEDLE) == []
    assert holders(tmp_path, KEPT), "another part's runs stay"
    with open_instance(workspace) as instance:
        assert len(instance.get_runs()) == 1


def holders(folder: Path, needle: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]
