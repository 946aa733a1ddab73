"""Shards written in pieces: by few rows at a time, and by a writer that dies in the middle of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmdata.publish.verify import verify_release
from mmdata.releases.manifest import open_release
from mmdata.select.stage import select_samples
from mmdata.shards import stage
from mmdata.storage.atomic import TEMPORARY
from tests.support.workspaces import Built, add_parts, build, release

PARTS = {"web-000000": range(40), "web-000001": range(40, 80)}
DYING = """
import os, signal, sys
from pathlib import Path
import mmdata.shards.stage as stage
from mmdata.workspace.layout import Workspace
from tests.support.workspaces import corpus_of
written = []
def dying(self, data):
    written.append(self)
    if len(written) == 5:  # the third shard: each has a note of its recipe
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    return real(self, data)
real, Path.write_bytes = Path.write_bytes, dying
stage.WRITERS = 1
corpus = corpus_of(sys.argv[1], shards={"shard_mb": 0.02, "validation_fraction": 0})
stage.write_shards(corpus, Workspace(sys.argv[1]))
"""


def tars(built: Built) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in built.workspace.shards_dir.glob("*.tar") if path.name[0] != "."}


def test_memory_does_not_decide_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, in_batches = build(str(tmp_path / "a"), PARTS), build(str(tmp_path / "b"), PARTS)
    release_id = release(at_once)
    loaded: list[int] = []
    real = stage.load_members
    monkeypatch.setattr(
        stage, "load_members", lambda workspace, rows, *more: loaded.append(len(rows)) or real(workspace, rows, *more)
    )
    monkeypatch.setattr(stage, "ROWS_AT_ONCE", 25)
    assert release(in_batches) == release_id
    assert len(loaded) > 2
    assert max(loaded) <= 25
    assert tars(at_once) == tars(in_batches)
    index = Path("releases") / release_id / "index.parquet"
    assert (tmp_path / "a" / index).read_bytes() == (tmp_path / "b" / index).read_bytes()


def test_the_index_has_a_row_group_a_shard(tmp_path: Path) -> None:
    built = build(str(tmp_path / "a"), PARTS)
    folder = built.workspace.release_dir(release(built))
    index = pq.ParquetFile((folder / "index.parquet").path)
    groups = [index.read_row_group(i, ["shard"])["shard"].to_pylist() for i in range(index.num_row_groups)]
    shards = open_release(folder).manifest["shards"]
    assert [(set(group), len(group)) for group in groups] == [({s["name"]}, s["samples"]) for s in shards]


def test_a_writer_killed_within_a_shard_leaves_only_a_draft(tmp_path: Path) -> None:
    built = build(str(tmp_path / "a"), PARTS, shards={"shard_mb": 0.02, "validation_fraction": 0})
    first = release(built)
    old = tars(built)
    add_parts(built, {"web-000002": range(80, 180)})
    select_samples(built.corpus, built.workspace)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(built.workspace.root)],
        cwd=root,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == -signal.SIGKILL
    drafts = list(Path(built.workspace.shards_dir.path).glob(f"{TEMPORARY}*"))
    assert [draft.name.endswith(".tar") for draft in drafts] == [True]
    assert built.workspace.latest() == first
    verify_release(built.workspace.root)
    finished = tars(built).keys() - old.keys()
    assert len(finished) == 2
    report = stage.write_shards(built.corpus, built.workspace)
    assert report.counts["shards_reused"] == len(old) + 2
    release(built)
    verify_release(built.workspace.root)
