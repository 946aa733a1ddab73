"""Samples are read by range, from disk or an object store, and damaged shards are named."""

from __future__ import annotations

import gc
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import DataError
from mmdata.samples import key_uid
from mmdata.workspace.layout import Workspace
from tests.support import workspaces
from tests.support.made_release import Sample, jpeg, mixed_samples, shard_of, write_release
from tests.training.conftest import upload
from training.data.sample_index import MEDIA, TrainingRelease, open_training_release, row_key, row_uid
from training.data.sample_reader import SampleReader


def shard_members(workspace: Workspace) -> dict[str, dict[str, bytes]]:
    """Every sample of a release by its key, as tarfile reads it."""
    members: dict[str, dict[str, bytes]] = {}
    for path in workspace.shards_dir.glob("*.tar"):
        with tarfile.open(str(path)) as tar:
            for member in tar:
                key, _, ext = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                members.setdefault(key, {})[ext] = data.read()
    return members


def all_members(release: TrainingRelease) -> dict[str, dict[str, bytes]]:
    reader = SampleReader(release)
    rows = [row for split in ("train", "validation") for row in release.samples(split)]
    return {row_key(row): dict(reader.members(row)) for row in rows}


@pytest.fixture
def fragile(tmp_path: Path) -> Workspace:
    """A release to break."""
    return write_release(tmp_path / "own", [Sample(f"picture {number}", {"jpg": jpeg(number)}) for number in range(6)])


def test_every_sample_is_read_as_tarfile_reads_it(mixed: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(mixed.root), tmp_path)
    expected = shard_members(mixed)
    assert all_members(release) == expected
    samples = {sample.uid: sample for sample in mixed_samples()}
    copied = next(key for key in expected if key.endswith("_r02"))
    assert key_uid(copied) in samples
    for split in ("train", "validation"):
        rows = release.samples(split)
        assert sorted(row_uid(row) for row in rows) == sorted(
            uid for uid, sample in samples.items() for _ in range(sample.copies) if sample.split == split
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
    return sum(link.readlink().suffix == ".tar" for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


@pytest.mark.parametrize("cut", ["between members", "in a header", "in the data of the last", "before it"])
def test_a_shard_cut_short_while_training_is_named(fragile: Workspace, tmp_path: Path, cut: str) -> None:
    release = open_training_release(str(fragile.root), tmp_path / "cache")
    row = release.samples("train")[3]
    start, length = int(row["offset"]), int(row["length"])
    keep = {
        "between members": length - 1024,
        "in a header": length - 700,
        "in the data of the last": length - 500,
        "before it": -10,
    }[cut]
    shard = fragile.shards_dir / release.shards[row["shard"]]
    shard.write_bytes(shard.read_bytes()[: start + keep])
    reader = SampleReader(release)
    with pytest.raises(DataError, match=rf"{shard.name}: byte \d+ does not begin a member of sample {row_uid(row)}"):
        reader.members(row)
    if keep > 0:
        assert reader.members(release.samples("train")[2])["txt"]


def test_a_shard_that_vanishes_while_training_is_named(fragile: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(fragile.root), tmp_path / "cache")
    shard = fragile.shards_dir / release.shards[0]
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: is no longer there"):
        SampleReader(release).members(release.samples("train")[0])


def test_a_shard_of_another_release_under_this_ones_name_is_named(fragile: Workspace, tmp_path: Path) -> None:
    """Same size to the byte, so that only its members tell."""
    other = write_release(tmp_path / "other", [Sample(f"another {n}", {"jpg": jpeg(n)}) for n in range(6)])
    ours, theirs = next(fragile.shards_dir.glob("*.tar")), next(other.shards_dir.glob("*.tar"))
    assert ours.stat().st_size == theirs.stat().st_size
    ours.write_bytes(theirs.read_bytes())
    release = open_training_release(str(fragile.root), tmp_path / "cache")
    with pytest.raises(DataError, match=rf"{ours.name}: byte 0 does not begin a member"):
        SampleReader(release).members(release.samples("train")[0])


def test_reads_over_s3_equal_local_ones(mixed: Workspace, bucket: str, tmp_path: Path) -> None:
    there = open_training_release(upload(mixed.root, bucket), tmp_path / "there")
    here = open_training_release(str(mixed.root), tmp_path / "here")
    assert there.digest == here.digest
    assert all_members(there) == all_members(here)
    again: Any = pickle.loads(pickle.dumps(SampleReader(there)))
    row = there.samples("train")[5]
    assert again.members(row) == SampleReader(here).members(row)


def test_broken_shards_on_s3_are_named(fragile: Workspace, bucket: str, tmp_path: Path) -> None:
    import s3fs

    root = upload(fragile.root, bucket)
    release = open_training_release(root, tmp_path / "cache")
    rows = release.samples("train")
    shard = f"{root}/shards/{shard_of(fragile, row_uid(rows[0]))}"
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
