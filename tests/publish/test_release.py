"""Publishing a release: what its manifest holds, and what stops it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.publish.release import publish_release, sha256_of, shard_problems
from mmdata.releases.manifest import open_release
from tests.support.workspaces import Built, build, release


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Built:
    built = build(str(tmp_path_factory.mktemp("published")), {"web-000000": range(12)})
    release(built)
    return built


def test_the_manifest_names_the_scorer_of_the_features_and_the_hash_of_every_file(published: Built) -> None:
    opened = open_release(published.workspace.root)
    assert set(opened.manifest["scorer"]) == {"name", "fingerprint"}
    assert "manifest.json" not in opened.manifest["files"]
    for name, expected in opened.manifest["files"].items():
        content = (opened.folder / name).read_bytes()
        assert expected == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_wids_lists_the_shards_of_each_split(published: Built) -> None:
    opened = open_release(published.workspace.root)
    for name, split in (("wids.json", "train"), ("wids-validation.json", "validation")):
        index = json.loads((opened.folder / name).read_bytes())
        samples = [shard["samples"] for shard in opened.manifest["shards"] if shard["split"] == split]
        assert [shard["nsamples"] for shard in index["shardlist"]] == samples
        for shard in index["shardlist"]:
            assert Path((opened.folder / shard["url"]).path).resolve().stat().st_size == shard["filesize"]


def test_a_published_release_is_left_as_it_is(published: Built) -> None:
    manifest = open_release(published.workspace.root).folder / "manifest.json"
    before = manifest.read_bytes()
    again = publish_release(published.corpus, published.workspace)
    assert (again.slices_done, again.slices_reused) == (0, 1)
    assert manifest.read_bytes() == before


def test_a_cut_shard_stops_the_release_and_is_named(tmp_path: Path) -> None:
    built = build(str(tmp_path), {"web-000000": range(6)})
    folder = built.workspace.release_dir(release(built))
    (folder / "manifest.json").unlink()
    shard = next(iter(built.workspace.shards_dir.glob("*.tar")))
    shard.write_bytes(shard.read_bytes()[:100])
    shards = json.loads((folder / "shards.json").read_bytes())["shards"]
    assert len(list(shard_problems(built.workspace, shards))) == 1
    with pytest.raises(DataError, match=f"{shard.name} has 100 bytes"):
        publish_release(built.corpus, built.workspace)
    assert not (folder / "manifest.json").exists()


def test_the_hash_of_a_file_comes_with_its_size(tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(UPath(tmp_path / "file")) == (hashlib.sha256(content).hexdigest(), len(content))
