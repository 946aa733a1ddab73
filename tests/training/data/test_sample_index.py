"""A release is read by range, from disk or an object store, and what is not the release's own is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.errors import DataError, UserError
from mmdata.workspace.layout import Workspace
from tests.support.made_release import RELEASE, Sample, jpeg, seal, write_release
from training.data.sample_index import open_training_release


@pytest.fixture
def fragile(tmp_path: Path) -> Workspace:
    """A release to break."""
    return write_release(tmp_path / "own", [Sample(f"picture {number}", {"jpg": jpeg(number)}) for number in range(6)])


def test_a_release_without_a_held_out_split_opens(fragile: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(fragile.root), tmp_path / "cache")
    assert len(release.samples("train")) == 6
    assert len(release.samples("validation")) == 0


def test_no_release_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no release there"):
        open_training_release(str(tmp_path), tmp_path / "cache")


def test_a_shard_that_was_short_or_gone_before_is_named(fragile: Workspace, tmp_path: Path) -> None:
    shard = next(fragile.shards_dir.glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(DataError, match=rf"{shard.name}: has {len(whole) - 512} bytes, the manifest says {len(whole)}"):
        open_training_release(str(fragile.root), tmp_path / "cache")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: is not there"):
        open_training_release(str(fragile.root), tmp_path / "cache")
    shutil.rmtree(str(fragile.shards_dir))
    with pytest.raises(DataError, match=rf"{shard.name}: is not there"):
        open_training_release(str(fragile.root), tmp_path / "cache")


def test_an_edited_manifest_is_named(fragile: Workspace, tmp_path: Path) -> None:
    manifest = fragile.release_dir(RELEASE) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"samples": 6', '"samples": 7'))
    with pytest.raises(DataError, match=r"manifest\.json: .* it was edited"):
        open_training_release(str(fragile.root), tmp_path / "cache")


@pytest.mark.parametrize("how", ["another's", "gone"])
def test_an_index_that_is_not_the_manifests_is_named(fragile: Workspace, tmp_path: Path, how: str) -> None:
    index = fragile.release_dir(RELEASE) / "index.parquet"
    other = write_release(tmp_path / "other", [Sample("another")])
    if how == "gone":
        index.unlink()
    else:
        index.write_bytes((other.release_dir(RELEASE) / "index.parquet").read_bytes())
    with pytest.raises(DataError, match=r"index\.parquet: is missing or not the one of the manifest"):
        open_training_release(str(fragile.root), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/done.json"))


def test_an_index_that_names_a_foreign_shard_is_refused(fragile: Workspace, tmp_path: Path) -> None:
    index = fragile.release_dir(RELEASE) / "index.parquet"
    pl.read_parquet(str(index)).with_columns(pl.lit("train-c0000-00009-0123.tar").alias("shard")).write_parquet(
        str(index)
    )
    seal(fragile)
    with pytest.raises(DataError, match=r"index\.parquet: names the shard train-c0000-00009-0123\.tar"):
        open_training_release(str(fragile.root), tmp_path / "cache")
    left = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert not left, "nothing half-made is left"


def test_each_release_has_a_cache_of_its_own_and_reads_its_index_once(fragile: Workspace, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_training_release(str(fragile.root), cache)
    other = write_release(tmp_path / "other", [Sample("another", {"jpg": jpeg(1)})])
    assert len(open_training_release(str(other.root), cache).samples("train")) == 1
    (fragile.release_dir(RELEASE) / "index.parquet").unlink()
    again = open_training_release(str(fragile.root), cache)
    assert np.array_equal(again.samples("train"), first.samples("train"))
