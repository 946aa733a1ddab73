"""Slices: resume, isolation of failures, stamps; publishing under a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from mmdata.config import Engine
from mmdata.engine.part_run import PartResult, SliceResult, run_part_stage, table_digest
from mmdata.errors import DataError, PartFailed
from mmdata.fingerprint import fingerprint
from mmdata.storage.atomic import TEMPORARY, publish_json
from mmdata.storage.tables import read_table, scan_tables, write_table
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Part, SliceStamp, Workspace

ROOT = Path(__file__).resolve().parents[2]
INPUTS = {"0000": "a", "0001": "b", "0002": "c"}


def make(name: str, log: Path, broken: str = "", killed: str = "", due: str | None = None) -> SliceResult:
    """The work of a slice: notes that it ran, and fails or dies where told to."""
    with log.open("a") as file:
        file.write(name + "\n")
    if name == broken:
        raise OSError("media.tar: bad block")
    if name == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    table = pa.table({"uid": [name * 8], "value": [int(name)]})
    return SliceResult(table, counts={"rows": 1}, reasons={"odd": int(name)}, next_retry_at=due)


def ran(log: Path) -> list[str]:
    return sorted(log.read_text().split()) if log.exists() else []


def run(
    workspace: Workspace,
    log: Path,
    engine: Engine | None = None,
    settings: str = "s",
    inputs: dict[str, str] | None = None,
    **work: str,
) -> PartResult:
    return run_part_stage(
        workspace,
        "web-000000",
        "features",
        settings=settings,
        inputs=inputs or INPUTS,
        upstream="u",
        work=partial(make, log=log, **work),
        engine=engine or Engine(),
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "workspace"))


def test_a_part_is_stamped_once_all_its_slices_are(workspace: Workspace, tmp_path: Path) -> None:
    result = run(workspace, tmp_path / "log")
    assert (result.done, result.reused) == (3, 0)
    stamp = workspace.part_stamp("web-000000", "features")
    assert stamp == result.stamp
    assert (stamp.rows, stamp.slices, stamp.accepted) == (3, ("0000", "0001", "0002"), True)
    assert (stamp.counts, stamp.reasons) == ({"rows": 3}, {"odd": 3})
    assert stamp.fingerprint == fingerprint("s", "u")


def test_a_second_run_redoes_only_what_is_missing_or_changed(workspace: Workspace, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = run(workspace, log)
    log.unlink()
    assert run(workspace, log).stamp == first.stamp
    assert ran(log) == []
    workspace.table("web-000000", "features", "0001").unlink()
    run(workspace, log)
    assert ran(log) == ["0001"]
    log.unlink()
    run(workspace, log, inputs={**INPUTS, "0002": "changed"})
    assert ran(log) == ["0002"]
    log.unlink()
    run(workspace, log, settings="other")
    assert ran(log) == ["0000", "0001", "0002"]


def test_a_broken_slice_fails_alone_and_the_rest_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(workspace, log)
    with pytest.raises(PartFailed, match=r"slice 0001: OSError: media.tar: bad block") as raised:
        run(workspace, log, settings="new", broken="0001")
    assert set(raised.value.failures) == {"0001"}
    assert workspace.part_stamp("web-000000", "features") is None, "an older stamp would vouch for mixed slices"
    log.unlink()
    result = run(workspace, log, settings="new")
    assert ran(log) == ["0001"]
    assert (result.done, result.reused) == (1, 2)


def test_a_worker_that_dies_fails_its_slice_alone(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(PartFailed) as raised:
        run(workspace, tmp_path / "log", Engine(workers=2), killed="0001")
    assert set(raised.value.failures) == {"0001"}
    assert workspace.slice_stamp("web-000000", "features", "0000") is not None
    assert workspace.slice_stamp("web-000000", "features", "0002") is not None


def test_processes_and_threads_give_the_same_part(tmp_path: Path) -> None:
    alone = run(Workspace(str(tmp_path / "a")), tmp_path / "log")
    several = run(Workspace(str(tmp_path / "b")), tmp_path / "log", Engine(workers=2))
    assert alone.stamp == several.stamp


def test_a_slice_with_due_retries_runs_again(workspace: Workspace, tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = {"settings": "s", "inputs": INPUTS, "upstream": "u", "engine": Engine()}
    first = run_part_stage(workspace, "p", "media", work=partial(make, log=log, due="2026-01-01T00:00:00Z"), **settings)
    assert first.stamp.next_retry_at == "2026-01-01T00:00:00Z"
    log.unlink()

    def due(stamp: SliceStamp) -> bool:
        return stamp.next_retry_at is not None

    again = run_part_stage(workspace, "p", "media", work=partial(make, log=log), is_due=due, **settings)
    assert ran(log) == ["0000", "0001", "0002"]
    assert again.stamp.next_retry_at is None


def test_a_part_that_is_not_accepted_says_why(workspace: Workspace, tmp_path: Path) -> None:
    work = partial(make, log=tmp_path / "log")
    result = run_part_stage(
        workspace,
        "p",
        "media",
        settings="s",
        inputs=INPUTS,
        upstream="u",
        work=work,
        engine=Engine(),
        accept=lambda slices: f"{len(slices)} slices are too few",
    )
    assert (result.stamp.accepted, result.stamp.reason) == (False, "3 slices are too few")


def test_the_digest_is_of_what_a_sample_is_not_of_when_it_was_fetched() -> None:
    table = pa.table({"uid": ["a", "b"], "sha256": ["1", "2"], "fetched_at": [1, 2]})
    later = table.set_column(2, "fetched_at", pa.array([3, 4]))
    other = table.set_column(1, "sha256", pa.array(["1", "3"]))
    rechunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert table_digest(table) == table_digest(later) == table_digest(rechunked) != table_digest(other)


def test_a_killed_writer_leaves_the_old_file_readable(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    publish_json(UPath(target), {"a": 1})
    code = (
        "import os, signal, sys\nfrom upath import UPath\nfrom mmdata.storage.atomic import atomic_path\n"
        "with atomic_path(UPath(sys.argv[1])) as draft:\n"
        "    draft.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -signal.SIGKILL
    assert read_json(UPath(target)) == {"a": 1}
    assert any(p.name.startswith(TEMPORARY) for p in tmp_path.iterdir()), "the kill came before the rename"


def test_tables_round_trip_byte_for_byte(tmp_path: Path) -> None:
    table = pa.table({"uid": ["a", "b"], "v": [1.5, None]})
    paths = [UPath(tmp_path / name) for name in ("x.parquet", "y.parquet")]
    for path in paths:
        write_table(path, table)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read_table(paths[0], ["v"]).column_names == ["v"]
    assert scan_tables(paths).collect().height == 4


def test_an_unreadable_table_is_named(tmp_path: Path) -> None:
    path = UPath(tmp_path / "x.parquet")
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet"):
        read_table(path)
    stamp = UPath(tmp_path / "x.json")
    stamp.write_text("{half")
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        read_json(stamp)


def test_the_catalogue_round_trips(workspace: Workspace) -> None:
    catalog = workspace.catalog()
    assert catalog.live_parts() == []
    part = Part("web-000000", "web", "in.parquet", 0, 10, "d")
    gone = Part("web-000001", "web", "in.parquet", 10, 20, "d", removed=True)
    workspace.write_catalog(type(catalog)(files={}, parts={part.name: part, gone.name: gone}))
    assert workspace.catalog().live_parts() == [part]
    assert workspace.part("web-000001") == gone
    assert workspace.releases() == []
    assert workspace.latest() is None


def test_ray_gives_the_same_part_and_keeps_a_failure_to_its_slice(workspace: Workspace, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}},
    )
    try:
        with pytest.raises(PartFailed) as raised:
            run(workspace, tmp_path / "log", Engine(backend="ray", workers=2), broken="0001")
        assert set(raised.value.failures) == {"0001"}
        result = run(workspace, tmp_path / "log", Engine(backend="ray", workers=2))
        assert (result.done, result.reused) == (1, 2)
        assert result.stamp == run(Workspace(str(tmp_path / "alone")), tmp_path / "log").stamp
    finally:
        ray.shutdown()
