"""Megatron-Energon's metadata: against the tars themselves, and against Energon where it is installed."""

from __future__ import annotations

import json
import struct
import tarfile
from pathlib import Path

import pytest

from mmdata.releases.manifest import open_release
from mmdata.shards.energon import offsets_path
from tests.support.workspaces import Built, add_parts, build, release

PARTS = {"web-000000": range(40), "web-000001": range(40, 80)}


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(str(tmp_path / "a"), PARTS)


def folder_of(built: Built, release_id: str) -> Path:
    return Path(built.workspace.release_dir(release_id).path)


def test_offsets_are_where_python_finds_the_samples(built: Built) -> None:
    release(built)
    shards = open_release(built.workspace.root).manifest["shards"]
    for shard in shards:
        path = built.workspace.shards_dir / shard["name"]
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            end = tar.offset
        starts: dict[str, int] = {}
        for info in members:
            starts.setdefault(info.name.partition(".")[0], info.offset)
        found = [value for (value,) in struct.iter_unpack("<Q", offsets_path(path).read_bytes())]
        assert found == [*starts.values(), end]
        assert len(found) == shard["samples"] + 1


def test_each_shard_stands_in_its_split_and_is_found_from_the_release(built: Built) -> None:
    folder = folder_of(built, release(built))
    manifest = open_release(built.workspace.root).manifest
    counts = json.loads((folder / ".nv-meta/.info.yaml").read_text())["shard_counts"]
    parts = json.loads((folder / ".nv-meta/split.yaml").read_text())["split_parts"]
    assert {Path(name).name: count for name, count in counts.items()} == {
        shard["name"]: shard["samples"] for shard in manifest["shards"]
    }
    assert all((folder / name).is_file() for name in counts)
    assert sorted(parts["train"] + parts["val"]) == sorted(counts)
    assert all(Path(name).name.startswith("validation-") for name in parts["val"])
    assert parts["test"] == []


def test_offsets_of_a_reused_shard_are_not_written_again(built: Built) -> None:
    release(built)
    old = {path: path.stat().st_mtime_ns for path in Path(built.workspace.shards_dir.path).glob("*.idx")}
    add_parts(built, {"web-000002": range(80, 100)})
    release(built)
    now = {path: path.stat().st_mtime_ns for path in Path(built.workspace.shards_dir.path).glob("*.idx")}
    assert len(now) > len(old)
    assert {path: now[path] for path in old} == old


def test_energon_reads_every_sample(built: Built) -> None:
    energon = pytest.importorskip("megatron.energon")
    folder = folder_of(built, release(built))
    worker = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    settings = {"batch_size": 1, "worker_config": worker}
    train = energon.get_train_dataset(
        str(folder), shuffle_buffer_size=None, max_samples_per_sequence=None, repeat=False, **settings
    )
    found: dict[str, str] = {}
    for dataset in (train, energon.get_val_dataset(str(folder), **settings)):
        for batch in energon.get_loader(dataset):
            assert tuple(batch.image.shape) == (1, 3, 24, 32)
            found[batch.__key__[0]] = batch.caption[0]
    assert found == built.captions
