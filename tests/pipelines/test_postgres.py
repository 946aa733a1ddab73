"""Dagster's storage on a real PostgreSQL: the graph, its partitions and sensors, and a daemon beside them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mmdata.workspace.layout import PartStage, Workspace
from pipelines.home import settings_template
from pipelines.instance import open_instance
from pipelines.partitions import PARTITION_TAG
from pipelines.resources import POOLS
from tests.support.postgres_server import postgres, postgres_binary

pytestmark = [
    pytest.mark.timeout(600),  # a daemon, its code server and its runs each load the graph
    pytest.mark.skipif(postgres_binary("initdb") is None, reason="no PostgreSQL binaries (initdb) on this machine"),
    pytest.mark.skipif(
        importlib.util.find_spec("dagster_postgres") is None, reason="dagster-postgres is not installed: extra postgres"
    ),
]

CORPUS = """workspace: ./workspace
sources:
  - {name: words, kind: text, files: inbox/*.jsonl, columns: {caption: text}, slice_rows: 4}
score: {model: demo}
refresh: {max_parts_per_tick: 20}
"""
MMDATA = [sys.executable, "-c", "from mmdata.cli.main import run; run()"]
WAIT_S = 400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = Path("/tmp") / f"mmdata-postgres-{os.getpid()}"  # a short path, and one that another user may enter
    with postgres(folder) as environment:
        yield environment
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def home(tmp_path: Path, server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAGSTER_HOME as docs/deploy.md makes it: the two files that mmdata ships, one after the other."""
    made = tmp_path / "home"
    made.mkdir()
    shipped = settings_template().parent
    text = (shipped / "dagster.yaml").read_text() + (shipped / "postgres.yaml").read_text()
    (made / "dagster.yaml").write_text(text)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(made))
    return made


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inbox").mkdir()
    for number in range(3):
        rows = [f'{{"text": "the {n}th sentence of file {number} is about boats"}}' for n in range(9)]
        (tmp_path / "inbox" / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    path = tmp_path / "corpus.yaml"
    path.write_text(CORPUS)
    monkeypatch.setenv("MMDATA_CONFIG", str(path))
    return path


def test_no_credential_stands_in_the_file() -> None:
    settings = yaml.safe_load((settings_template().parent / "postgres.yaml").read_text())
    fields = settings["storage"]["postgres"]["postgres_db"]
    assert all(set(fields[name]) == {"env"} for name in ("hostname", "username", "password", "db_name", "port"))


def test_build_keeps_its_runs_in_postgres(home: Path, corpus: Path) -> None:
    command = [*MMDATA, "build", "-c", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    with open_instance(Workspace(str(corpus.parent / "workspace"))) as instance:
        assert "Postgres" in type(instance.run_storage).__name__
        assert set(instance.get_dynamic_partitions("parts")) == {f"words-{n:06d}" for n in range(3)}
        runs = instance.get_runs()
        assert {run.job_name for run in runs} == {"refresh_catalog", "build_part", "publish_release"}
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()} == POOLS
        instance.wipe()
    assert not list(home.glob("**/*.db"))  # nothing beside it in SQLite


def test_daemon_in_a_process_of_its_own_builds_what_the_sensor_asks_for(home: Path, corpus: Path) -> None:
    """Nobody presses anything: the sensor sees stale parts, and the daemon takes the runs off the queue.

    Two run at once, and none gets past a pool whose only slot is taken until that is free.
    """
    workspace = Workspace(str(corpus.parent / "workspace"))
    command = [*MMDATA, "build", "--sources-only", "-c", str(corpus)]
    subprocess.run(command, capture_output=True, check=True, timeout=WAIT_S)
    log = (home / "daemon.log").open("w")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "dagster._daemon", "run", "-m", "pipelines.definitions"],
        cwd=home,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        with open_instance(workspace) as instance:
            assert instance.event_log_storage.claim_concurrency_slot("gpu", "somebody", "else").is_claimed
            wait_for_parts(instance, 2, dg.DagsterRunStatus.STARTED)
            wait(lambda: sum(finished(workspace, "media")) >= 2)
            assert not any(finished(workspace, "features"))
            instance.event_log_storage.free_concurrency_slots_for_run("somebody")
            runs = wait_for_parts(instance, 3, dg.DagsterRunStatus.SUCCESS)
            assert {run.tags[PARTITION_TAG] for run in runs} == {f"words-{n:06d}" for n in range(3)}
            assert {run.tags["dagster/sensor_name"] for run in runs} == {"new_parts"}
            instance.wipe()
    except AssertionError:
        sys.stderr.write((home / "daemon.log").read_text()[-4000:])
        raise
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(60)
        log.close()
    assert all(finished(workspace, "features"))


def finished(workspace: Workspace, stage: PartStage) -> list[bool]:
    return [workspace.part_stamp(f"words-{n:06d}", stage) is not None for n in range(3)]


def wait_for_parts(instance: dg.DagsterInstance, parts: int, status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    wanted = dg.RunsFilter(job_name="build_part", statuses=[status])
    wait(lambda: len(instance.get_runs(filters=wanted)) >= parts)
    return list(instance.get_runs(filters=wanted))


def wait(until: Callable[[], bool]) -> None:
    since = time.monotonic()
    while not until():
        assert time.monotonic() - since < WAIT_S, "nothing came of it; the daemon's log is above"
        time.sleep(0.5)
