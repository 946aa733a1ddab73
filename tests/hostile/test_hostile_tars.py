"""Releases from elsewhere whose archives lie, though their hashes hold: each reader names them or is unmoved."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.errors import DataError
from mmdata.instruct.media_paths import member_path, read_member
from mmdata.publish.verify import verify_release
from mmdata.releases.manifest import manifest_digest, open_release
from mmdata.samples import INDEX
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Workspace
from tests.support.hostile_tars import archives, plain
from tests.support.made_release import RELEASE, Sample, jpeg, seal, write_release
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader

MEMORY_BYTES = 30_000_000
SAID = {
    **dict.fromkeys(("size of 8 GiB", "size below zero", "cut short", "checksum", "no tar"), "not a whole tar"),
    "member twice": "occurs more than once",
    **{f"pickle as .{ext}": "has an unknown extension" for ext in ("pkl", "pyd", "pickle", "pth", "npy", "cls")},
}
KINDS = sorted(archives(Path()))


def honest(root: Path) -> Workspace:
    return write_release(root, [Sample(f"picture {number}", {"jpg": jpeg(number)}) for number in range(3)])


def members_of(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


def forged(root: Path, kind: str, mark: Path) -> tuple[Workspace, str]:
    """A release in which index, manifest and hashes fit an archive of a kind; and the shard's name."""
    workspace = honest(root)
    folder = Path(workspace.release_dir(RELEASE).path)
    old = next(Path(workspace.shards_dir.path).glob("*.tar"))
    data, body = archives(mark)[kind](members_of(old)), old.read_bytes().rstrip(b"\0")
    digest = hashlib.sha256(data).hexdigest()
    name = f"train-c0000-00000-{digest[:12]}.tar"
    old.unlink()
    (old.parent / name).write_bytes(data)
    moved = max(0, data.find(body[:4096]))
    index = pl.read_parquet(folder / "index.parquet").with_columns(shard=pl.lit(name), offset=pl.col("offset") + moved)
    write_table(workspace.release_dir(RELEASE) / "index.parquet", index.to_arrow().cast(INDEX))
    seal(workspace, [{"name": name, "split": "train", "sha256": digest, "bytes": len(data), "samples": len(index)}])
    return workspace, name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, two deep, so that what breaks out of it is seen."""
    folder = tmp_path / "deep" / "inside"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_verify_names_the_shard_writes_nothing_and_unfolds_nothing(place: Path, tmp_path: Path, kind: str) -> None:
    workspace, shard = forged(place / "release", kind, place / "mark")
    before = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    for decode in (False, True):
        tracemalloc.start()
        with pytest.raises(DataError, match=rf"{shard}: ") as raised:
            verify_release(workspace.root, decode=decode)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY_BYTES
    assert SAID.get(kind, "is not a plain file of a sample") in str(raised.value)
    assert {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", KINDS)
def test_training_reads_the_samples_or_names_the_shard(place: Path, kind: str) -> None:
    workspace, shard = forged(place / "release", kind, place / "mark")
    wanted = {f"picture {number}": jpeg(number) for number in range(3)}
    tracemalloc.start()
    try:
        release = open_training_release(str(workspace.root), place / "cache")
        reader = SampleReader(release)
        for row in release.samples("train"):
            members = reader.members(row)
            assert members["jpg"] == wanted[members["txt"].decode()]
            assert not {"pkl", "pyd", "pth"} & set(members) or kind.startswith("pickle")
    except DataError as error:
        assert shard in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert not (place / "mark").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_is_read_as_it_was_or_named(place: Path, kind: str) -> None:
    members = members_of(next(Path(honest(place / "honest").shards_dir.path).glob("*.tar")))
    workspace, shard = forged(place / "release", kind, place / "mark")
    tracemalloc.start()
    for name, data in members.items():
        key, _, ext = name.partition(".")
        try:
            assert read_member(member_path(key, ext, shard), workspace.root) == data
        except DataError as error:
            assert shard in str(error)
    for name in ("passwd", "evil.jpg", next(iter(members)).partition(".")[0] + ".png"):
        with pytest.raises(DataError):
            read_member(f"tar://{name}::shards/{shard}", workspace.root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert not (place / "mark").exists()


@pytest.mark.parametrize(
    ("offset", "length"), [(-512, 1024), (0, 1 << 60), (1 << 62, 1 << 62), (0, 0), (0, -1), (10_000_000, 512)]
)
def test_an_index_that_points_outside_its_shard_is_refused_before_a_byte_is_read(
    place: Path, offset: int, length: int
) -> None:
    workspace = honest(place / "release")
    folder = workspace.release_dir(RELEASE)
    first = pl.int_range(pl.len()) == 0
    index = pl.read_parquet((folder / "index.parquet").path).with_columns(
        offset=pl.when(first).then(offset).otherwise("offset"), length=pl.when(first).then(length).otherwise("length")
    )
    write_table(folder / "index.parquet", index.to_arrow().cast(INDEX))
    seal(workspace)
    with pytest.raises(DataError, match=rf"sample {index['uid'][0]} is said to lie at byte"):
        open_training_release(str(workspace.root), place / "cache")
    with pytest.raises(DataError, match=index["uid"][0]):
        verify_release(workspace.root)


@pytest.mark.parametrize("key", ["shards", "files", "release_id"])
@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "a\\..\\b", "..", "s3://other/x.tar", "x\x1b[2J"]
)
def test_a_manifest_that_names_files_elsewhere_is_refused(place: Path, key: str, name: str) -> None:
    workspace = honest(place / "release")
    path = workspace.release_dir(RELEASE) / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    if key == "shards":
        manifest["shards"][0]["name"] = name
    elif key == "files":
        manifest["files"][name] = manifest["files"].pop("index.parquet")
    else:
        manifest["release_id"] = name
    manifest["digest"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json: .* is no plain name"):
        open_release(str(workspace.root))


def test_latest_leads_to_no_other_folder(place: Path) -> None:
    workspace = honest(place / "release")
    (workspace.releases_dir / "latest").write_text("../../elsewhere\n")
    with pytest.raises(DataError, match="is no plain name"):
        open_release(str(workspace.root))


def test_json_that_is_only_brackets_is_an_error_and_no_crash(place: Path) -> None:
    workspace = honest(place / "release")
    (workspace.release_dir(RELEASE) / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match="not valid JSON"):
        open_release(str(workspace.root))


@pytest.mark.parametrize(("at", "old", "new"), [(156, b"0", b"2"), (156, b"0", b"S"), (0, b".json", b".txt\0")])
def test_a_sample_whose_members_are_no_plain_files_once_each_is_named(
    place: Path, at: int, old: bytes, new: bytes
) -> None:
    """What changes under an open release: a link in a picture's place, a member that takes another's name."""
    workspace = honest(place / "release")
    release = open_training_release(str(workspace.root), place / "cache")
    shard = next(Path(workspace.shards_dir.path).glob("*.tar"))
    data = bytearray(shard.read_bytes())
    found = data.index(old, at)
    data[found : found + len(old)] = new
    shard.write_bytes(data)
    reader = SampleReader(release)
    with pytest.raises(DataError, match=shard.name):
        for row in release.samples("train"):
            reader.members(row)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"uid": ' * 50_000, "9" * 5000, "[]", "null", '"x"'])
def test_facts_that_are_no_facts_are_named(place: Path, text: str) -> None:
    root = place / "release"
    workspace = write_release(root, [Sample("a", {"jpg": jpeg(1)})])
    workspace, shard = _with_facts(workspace, text.encode())
    with pytest.raises(DataError, match=rf"{shard}: member [0-9a-f]+\.json: cannot be read"):
        verify_release(workspace.root)


def _with_facts(workspace: Workspace, facts: bytes) -> tuple[Workspace, str]:
    old = next(Path(workspace.shards_dir.path).glob("*.tar"))
    members = {name: facts if name.endswith(".json") else data for name, data in members_of(old).items()}
    data = plain(members)
    old.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    seal(workspace, [{"name": old.name, "split": "train", "sha256": digest, "bytes": len(data), "samples": 1}])
    return workspace, old.name
