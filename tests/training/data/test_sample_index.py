"""A release is read by range, from disk or an object store, and what is not the release's own is refused by name."""

from __future__ import annotations

import gc
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmdata.errors import DataError, UserError
from mmdata.samples import key_uid
from mmdata.workspace.layout import Workspace
from tests.support import workspaces
from tests.support.made_release import RELEASE, Sample, jpeg, mixed_samples, seal, shard_of, write_release
from tests.training.conftest import upload
from training.data.index_cache import publish_folder
from training.data.sample_index import MEDIA, TrainingRelease, find_rows, open_training_release, row_key, row_uid
from training.data.sample_reader import SampleReader


def shard_members(workspace: Workspace) -> dict[str, dict[str, bytes]]:
    """Every sample of a release by its key, as tarfile reads it."""
    found: dict[str, dict[str, bytes]] = {}
    for path in workspace.shards_dir.glob("*.tar"):
        with tarfile.open(str(path)) as tar:
            for member in tar:
                key, _, ext = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                found.setdefault(key, {})[ext] = data.read()
    return found


def all_members(release: TrainingRelease) -> dict[str, dict[str, bytes]]:
    reader = SampleReader(release)
    rows = [row for split in ("train", "validation") for row in release.samples(split)]
    return {row_key(row): dict(reader.members(row)) for row in rows}


@pytest.fixture
def own(tmp_path: Path) -> Workspace:
    """A release to break."""
    return write_release(tmp_path / "own", [Sample(f"picture {number}", {"jpg": jpeg(number)}) for number in range(6)])


def test_every_sample_is_read_as_tarfile_reads_it(mixed: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(mixed.root), tmp_path)
    expected = shard_members(mixed)
    assert all_members(release) == expected
    samples = {one.uid: one for one in mixed_samples()}
    copied = next(key for key in expected if key.endswith("_r02"))
    assert key_uid(copied) in samples
    for split in ("train", "validation"):
        rows = release.samples(split)
        assert sorted(row_uid(row) for row in rows) == sorted(
            uid for uid, one in samples.items() for _ in range(one.copies) if one.split == split
        )
        for row in rows:
            held = {kind for bit, kind in enumerate(MEDIA) if row["media"] >> bit & 1}
            assert held == set(samples[row_uid(row)].signature.split("+")) - {"text"}
    assert not release.samples("train").flags.writeable


def test_a_release_of_the_publish_stages_is_read(tmp_path: Path) -> None:
    built = workspaces.build(str(tmp_path / "real"), {"web-000000": range(12)})
    release_id = workspaces.release(built)
    for path in (
        built.workspace.root,
        built.workspace.releases_dir / "latest",
        built.workspace.release_dir(release_id),
    ):
        release = open_training_release(str(path), tmp_path / "cache")
        assert release.id == release_id
        for key, members in all_members(release).items():
            assert members["txt"].decode() == built.captions[key]
            assert members["jpg"] == built.pictures[key]


def test_rows_are_found_by_uid_and_copy(mixed: Workspace, tmp_path: Path) -> None:
    samples = open_training_release(str(mixed.root), tmp_path).samples("train")
    chosen = np.array([7, 3, 19])
    keys = pl.DataFrame({name: np.ascontiguousarray(samples[name][chosen]) for name in ("high", "low", "copy")})
    assert find_rows(samples, keys).tolist() == [7, 3, 19]
    assert find_rows(samples, keys.with_columns(pl.lit(9, pl.UInt16).alias("copy"))).tolist() == [-1] * 3


def test_a_release_without_a_held_out_split_opens(own: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(own.root), tmp_path / "cache")
    assert len(release.samples("train")) == 6
    assert len(release.samples("validation")) == 0


def test_a_reader_goes_to_another_process_and_leaves_no_open_files(mixed: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(mixed.root), tmp_path)
    gc.collect()
    before = open_shards()
    reader = SampleReader(release)
    members = [reader.members(row) for row in release.samples("train")]
    assert open_shards() == before + sum(name.startswith("train") for name in release.shards)
    other = pickle.loads(pickle.dumps(reader))
    assert [other.members(row) for row in release.samples("train")] == members
    del reader, other
    gc.collect()
    assert open_shards() == before


def open_shards() -> int:
    """Descriptors of shards that this process holds."""
    return sum(one.readlink().suffix == ".tar" for one in Path("/proc/self/fd").iterdir() if one.is_symlink())


def test_no_release_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no release there"):
        open_training_release(str(tmp_path), tmp_path / "cache")


def test_a_shard_that_was_short_or_gone_before_is_named(own: Workspace, tmp_path: Path) -> None:
    shard = next(own.shards_dir.glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(DataError, match=rf"{shard.name}: has {len(whole) - 512} bytes, the manifest says {len(whole)}"):
        open_training_release(str(own.root), tmp_path / "cache")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: is not there"):
        open_training_release(str(own.root), tmp_path / "cache")
    shutil.rmtree(str(own.shards_dir))
    with pytest.raises(DataError, match=rf"{shard.name}: is not there"):
        open_training_release(str(own.root), tmp_path / "cache")


@pytest.mark.parametrize("place", ["between members", "in a header", "in the data of the last", "before it"])
def test_a_shard_cut_short_while_training_is_named(own: Workspace, tmp_path: Path, place: str) -> None:
    release = open_training_release(str(own.root), tmp_path / "cache")
    row = release.samples("train")[3]
    start, length = int(row["offset"]), int(row["length"])
    keep = {
        "between members": length - 1024,
        "in a header": length - 700,
        "in the data of the last": length - 500,
        "before it": -10,
    }[place]
    shard = own.shards_dir / release.shards[row["shard"]]
    shard.write_bytes(shard.read_bytes()[: start + keep])
    reader = SampleReader(release)
    with pytest.raises(DataError, match=rf"{shard.name}: byte \d+ does not begin a member of sample {row_uid(row)}"):
        reader.members(row)
    if keep > 0:
        assert reader.members(release.samples("train")[2])["txt"]


def test_a_shard_that_vanishes_while_training_is_named(own: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(own.root), tmp_path / "cache")
    shard = own.shards_dir / release.shards[0]
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: is no longer there"):
        SampleReader(release).members(release.samples("train")[0])


def test_a_shard_of_another_release_under_this_ones_name_is_named(own: Workspace, tmp_path: Path) -> None:
    """Same size to the byte, so that only its members tell."""
    other = write_release(tmp_path / "other", [Sample(f"another {n}", {"jpg": jpeg(n)}) for n in range(6)])
    ours, theirs = next(own.shards_dir.glob("*.tar")), next(other.shards_dir.glob("*.tar"))
    assert ours.stat().st_size == theirs.stat().st_size
    ours.write_bytes(theirs.read_bytes())
    release = open_training_release(str(own.root), tmp_path / "cache")
    with pytest.raises(DataError, match=rf"{ours.name}: byte 0 does not begin a member"):
        SampleReader(release).members(release.samples("train")[0])


def test_an_edited_manifest_is_named(own: Workspace, tmp_path: Path) -> None:
    manifest = own.release_dir(RELEASE) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"samples": 6', '"samples": 7'))
    with pytest.raises(DataError, match=r"manifest\.json: .* it was edited"):
        open_training_release(str(own.root), tmp_path / "cache")


@pytest.mark.parametrize("how", ["another's", "gone"])
def test_an_index_that_is_not_the_manifests_is_named(own: Workspace, tmp_path: Path, how: str) -> None:
    index = own.release_dir(RELEASE) / "index.parquet"
    other = write_release(tmp_path / "other", [Sample("another")])
    if how == "gone":
        index.unlink()
    else:
        index.write_bytes((other.release_dir(RELEASE) / "index.parquet").read_bytes())
    with pytest.raises(DataError, match=r"index\.parquet: is missing or not the one of the manifest"):
        open_training_release(str(own.root), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/done.json"))


def test_an_index_that_names_a_foreign_shard_is_refused(own: Workspace, tmp_path: Path) -> None:
    index = own.release_dir(RELEASE) / "index.parquet"
    pl.read_parquet(str(index)).with_columns(pl.lit("train-c0000-00009-0123.tar").alias("shard")).write_parquet(
        str(index)
    )
    seal(own)
    with pytest.raises(DataError, match=r"index\.parquet: names the shard train-c0000-00009-0123\.tar"):
        open_training_release(str(own.root), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*")), "nothing half-made is left"


def test_each_release_has_a_cache_of_its_own_and_reads_its_index_once(own: Workspace, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_training_release(str(own.root), cache)
    other = write_release(tmp_path / "other", [Sample("another", {"jpg": jpeg(1)})])
    assert len(open_training_release(str(other.root), cache).samples("train")) == 1
    (own.release_dir(RELEASE) / "index.parquet").unlink()
    again = open_training_release(str(own.root), cache)
    assert np.array_equal(again.samples("train"), first.samples("train"))


def test_who_publishes_a_folder_second_throws_his_own_away(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def fill(folder: Path) -> None:
        (folder / "done.json").write_text("second")
        if not target.exists():
            publish_folder(target, lambda other: (other / "done.json").write_text("first"))

    publish_folder(target, fill)
    assert (target / "done.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_reads_over_s3_equal_local_ones(mixed: Workspace, bucket: str, tmp_path: Path) -> None:
    there = open_training_release(upload(mixed.root, bucket), tmp_path / "there")
    here = open_training_release(str(mixed.root), tmp_path / "here")
    assert there.digest == here.digest
    assert all_members(there) == all_members(here)
    again: Any = pickle.loads(pickle.dumps(SampleReader(there)))
    row = there.samples("train")[5]
    assert again.members(row) == SampleReader(here).members(row)


def test_broken_shards_on_s3_are_named(own: Workspace, bucket: str, tmp_path: Path) -> None:
    import s3fs

    root = upload(own.root, bucket)
    release = open_training_release(root, tmp_path / "cache")
    rows = release.samples("train")
    shard = f"{root}/shards/{shard_of(own, row_uid(rows[0]))}"
    other = s3fs.S3FileSystem(skip_instance_cache=True)  # as another process would
    other.pipe_file(shard, other.cat_file(shard)[:3000])
    reader = SampleReader(release)
    for row in (rows[1], rows[5]):
        with pytest.raises(DataError, match=rf"{Path(shard).name}: byte \d+ does not begin a member of sample"):
            reader.members(row)
    with pytest.raises(DataError, match=rf"{Path(shard).name}: has 3000 bytes"):
        open_training_release(root, tmp_path / "cache")
    other.rm(shard)
    with pytest.raises(DataError, match=rf"{Path(shard).name}: is no longer there"):
        reader.members(rows[0])
    with pytest.raises(DataError, match=rf"{Path(shard).name}: is not there"):
        open_training_release(root, tmp_path / "cache")
