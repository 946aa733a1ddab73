"""Releases over real tables: determinism, reuse, kills, and other people's readers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.publish.verify import verify_release, verify_shards
from mmdata.releases.draft import read_draft
from mmdata.releases.manifest import open_release
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace
from tests.support.workspaces import SELECT_ALL, Built, add_parts, build, release

PARTS = {"web-000000": range(40), "web-000001": range(40, 80)}


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(str(tmp_path / "a"), PARTS)


def tars(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.shards_dir.glob("*.tar")}


def index_of(built: Built, release_id: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(read_table(built.workspace.release_dir(release_id) / "index.parquet")))


def paths_of(built: Built, release_id: str, split: str = "train") -> list[str]:
    manifest = open_release(built.workspace.release_dir(release_id)).manifest
    return [str(built.workspace.shards_dir / s["name"]) for s in manifest["shards"] if s["split"] == split]


def test_what_went_in_comes_out(built: Built) -> None:
    release_id = release(built)
    index = index_of(built, release_id)
    assert sorted(index["uid"]) == sorted(built.captions)
    assert len(tars(built.workspace)) > 3, "small shards, so that several are tested"
    for row in index.iter_rows(named=True):
        with (built.workspace.shards_dir / row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            own = file.read(row["length"])
        with tarfile.open(fileobj=__import__("io").BytesIO(own + bytes(1024)), mode="r:") as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar}
        uid = row["uid"]
        facts = json.loads(members.pop(f"{uid}.json"))
        assert members == {f"{uid}.jpg": built.pictures[uid], f"{uid}.txt": built.captions[uid].encode()}
        assert (facts["uid"], facts["extra"], facts["signature"]) == (uid, '{"LICENSE": "CC0"}', "image+text")
        assert row["pixels"] == 32 * 24


def test_two_workspaces_give_the_same_bytes_and_the_same_id(built: Built, tmp_path: Path) -> None:
    other = build(str(tmp_path / "b"), dict(reversed(PARTS.items())))
    ids = {release(built), release(other)}
    assert len(ids) == 1
    assert tars(built.workspace) == tars(other.workspace)
    folders = [b.workspace.release_dir(ids.copy().pop()) for b in (built, other)]
    manifests = [open_release(folder).manifest for folder in folders]
    assert manifests[0]["shards"] == manifests[1]["shards"]
    for name in ("index.parquet", "selection.parquet", "instruct-chat-train.jsonl", "wids.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_shard_is_named_by_its_content(built: Built) -> None:
    import hashlib

    release(built)
    for name, data in tars(built.workspace).items():
        assert name.endswith(f"-{hashlib.sha256(data).hexdigest()[:12]}.tar")


def test_nothing_new_writes_nothing(built: Built) -> None:
    first = release(built)
    before = {path: path.stat().st_mtime_ns for path in Path(built.workspace.root).rglob("*") if path.is_file()}
    assert release(built) == first
    after = {path: path.stat().st_mtime_ns for path in Path(built.workspace.root).rglob("*") if path.is_file()}
    assert {p for p in after if after[p] != before.get(p)} == set()


def test_a_new_part_leaves_old_shards_untouched(built: Built) -> None:
    first = release(built)
    old = tars(built.workspace)
    add_parts(built, {"web-000002": range(80, 100)})
    second = release(built)
    assert second != first
    manifest = open_release(built.workspace.release_dir(second)).manifest
    assert manifest["parent"] == first
    new = [s for s in manifest["shards"] if s["name"] not in old]
    assert {s["cohort"] for s in new} == {"c0001"}
    assert {s["name"] for s in manifest["shards"]} > set(old)
    verify_release(built.workspace.release_dir(first))
    verify_release(built.workspace.release_dir(second))


def test_a_dropped_sample_rewrites_its_bucket_alone(built: Built) -> None:
    first = release(built)
    index = index_of(built, first)
    worst = index.filter(pl.col("split") == "train").sort("clip_score").row(0, named=True)
    stricter = {**SELECT_ALL, "filter": {"min_clip_score": worst["clip_score"] + 1e-6}}
    changed = Built(
        built.corpus.model_copy(update={"select": type(built.corpus.select).model_validate(stricter)}), built.workspace
    )
    second = release(changed)
    dropped = set(index["uid"]) - set(index_of(built, second)["uid"])
    touched = set(index.filter(pl.col("uid").is_in(list(dropped)))["shard"])
    names = {s["name"] for s in open_release(built.workspace.release_dir(second)).manifest["shards"]}
    assert worst["uid"] in dropped
    assert set(index["shard"]) - names == touched


def test_copies_lie_apart_and_carry_their_number(tmp_path: Path) -> None:
    select = {**SELECT_ALL, "oversample": {"threshold": 0.5, "max_repeats": 4}}
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("picture\nnumber 1\nnumber 2\n")
    select["balance"] = {"max_ratio": None, "concepts": str(concepts)}
    built = build(str(tmp_path / "a"), PARTS, select=select)
    index = index_of(built, release(built))
    repeated = index.filter(pl.col("repeats") > 1)
    assert repeated.height > 0
    for row in repeated.iter_rows(named=True):
        assert row["key"] == (row["uid"] if row["copy"] == 0 else f"{row['uid']}_r{row['copy']:02d}")
    assert index.filter((pl.col("copy") > 0) & (pl.col("split") == "validation")).is_empty()
    verify_release(built.workspace.root)


def test_a_killed_writer_leaves_the_old_release_readable_and_is_continued(built: Built) -> None:
    first = release(built)
    add_parts(built, {"web-000002": range(80, 140)})
    select_samples(built.corpus, built.workspace)
    code = f"""
import os, signal
import mmdata.shards.stage as stage
from tests.support.workspaces import corpus_of
from mmdata.workspace.layout import Workspace
real, calls = stage.publish_json, []
def dying(*args):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
stage.publish_json = dying
stage.WRITERS = 1
stage.write_shards(corpus_of({str(built.workspace.root)!r}), Workspace({str(built.workspace.root)!r}))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=False, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == -signal.SIGKILL
    assert built.workspace.latest() == first
    verify_release(built.workspace.root)
    report = write_shards(built.corpus, built.workspace)
    old = len(open_release(built.workspace.release_dir(first)).manifest["shards"])
    assert report.counts["shards_reused"] >= old or report.counts["shards_reused"] >= 2
    assert report.counts["shards_written"] < report.counts["shards"] - 1
    undisturbed = build(str(Path(built.workspace.root).parent / "c"), PARTS)
    release(undisturbed)
    add_parts(undisturbed, {"web-000002": range(80, 140)})
    release(built)
    release(undisturbed)
    listed = [open_release(b.workspace.root).manifest["shards"] for b in (built, undisturbed)]
    assert listed[0] == listed[1]


def test_publishing_needs_every_stage_and_whole_shards(built: Built) -> None:
    with pytest.raises(DataError, match="nothing is selected"):
        write_shards(built.corpus, built.workspace)
    select_samples(built.corpus, built.workspace)
    with pytest.raises(DataError, match="`shards` is not made yet"):
        publish_release(built.corpus, built.workspace)
    write_shards(built.corpus, built.workspace)
    with pytest.raises(DataError, match="`instructions` is not made yet"):
        publish_release(built.corpus, built.workspace)
    write_instructions(built.corpus, built.workspace)
    victim = next(iter(built.workspace.shards_dir.glob("*.tar")))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=victim.name):
        publish_release(built.corpus, built.workspace)
    assert built.workspace.latest() is None
    write_shards(built.corpus, built.workspace)
    assert victim.read_bytes() == whole, "a shard of the wrong size is written again"
    publish_release(built.corpus, built.workspace)


def test_a_media_tar_that_is_gone_is_named(built: Built) -> None:
    select_samples(built.corpus, built.workspace)
    tar = built.workspace.media_tar("web-000001", "0000", None)
    tar.write_bytes(b"short")
    with pytest.raises(DataError, match=r"web-000001/media/0000.tar.*--redo web-000001:media:0000`"):
        write_shards(built.corpus, built.workspace)


def test_releases_open_by_folder_latest_or_workspace(built: Built) -> None:
    with pytest.raises(UserError, match="no release there"):
        open_release(built.workspace.root)
    release_id = release(built)
    for path in (
        built.workspace.root,
        built.workspace.releases_dir / "latest",
        built.workspace.release_dir(release_id),
    ):
        assert open_release(path).id == release_id


def test_passwords_stay_out_of_the_manifest(tmp_path: Path) -> None:
    built = build(str(tmp_path / "a"), PARTS)
    source = built.corpus.sources[0].model_copy(update={"files": "https://me:secret@example.org/x.parquet"})
    leaky = Built(built.corpus.model_copy(update={"sources": [source]}), built.workspace)
    release_id = release(leaky)
    assert "secret" not in (built.workspace.release_dir(release_id) / "manifest.json").read_text()


def test_plain_webdataset_reads_every_sample(built: Built) -> None:
    import webdataset as wds

    release_id = release(built)
    dataset = (
        wds.WebDataset(paths_of(built, release_id), shardshuffle=False).decode("pil").to_tuple("__key__", "jpg", "txt")
    )
    found = {key: text for key, image, text in dataset if image.size == (32, 24)}
    train = index_of(built, release_id).filter(pl.col("split") == "train")
    assert found == {uid: built.captions[uid] for uid in train["uid"]}


def test_wids_reads_by_number(built: Built) -> None:
    import wids

    release_id = release(built)
    index = built.workspace.release_dir(release_id) / "wids.json"
    dataset = wids.ShardListDataset(str(index), base=str(index.parent), keep=True)
    train = index_of(built, release_id).filter(pl.col("split") == "train")
    assert len(dataset) == train.height
    for number in (0, len(dataset) - 1):
        sample = dataset[number]
        assert sample[".txt"] == built.captions[sample["__key__"]]


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets_read_every_sample(built: Built, tmp_path: Path, streaming: bool) -> None:
    import datasets

    release_id = release(built)
    loaded = datasets.load_dataset(
        "webdataset",
        data_files={"train": paths_of(built, release_id)},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path / "cache"),
    )
    found = {row["__key__"]: row["txt"] for row in loaded}
    train = index_of(built, release_id).filter(pl.col("split") == "train")
    assert {key: text if isinstance(text, str) else text.decode() for key, text in found.items()} == {
        uid: built.captions[uid] for uid in train["uid"]
    }


def damage(built: Built, release_id: str, how: str) -> str:
    """Break a release in one way; gives what the error must name."""
    folder = built.workspace.release_dir(release_id)
    shard = Path(paths_of(built, release_id)[0])
    data = bytearray(shard.read_bytes())
    if how == "flipped byte":
        data[700] ^= 1
    elif how == "truncated":
        data = data[:-5000]
    elif how == "appended":
        data += bytes(512)
    elif how == "traversal":
        data[:4] = b"../x"
    elif how == "pickle":
        name = bytes(data[:100]).rstrip(b"\0")
        data[: len(name)] = name[:-3] + b"pkl"
    elif how == "gone":
        shard.unlink()
        return shard.name
    elif how == "index":
        path = folder / "index.parquet"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        return "cannot be read as Parquet"
    elif how == "manifest":
        path = folder / "manifest.json"
        path.write_text(path.read_text().replace('"train"', '"validation"', 1))
        return "does not match its digest"
    shard.write_bytes(bytes(data))
    return shard.name


@pytest.mark.parametrize(
    "how", ["flipped byte", "truncated", "appended", "traversal", "pickle", "gone", "index", "manifest"]
)
def test_verify_names_what_is_damaged(built: Built, how: str) -> None:
    release_id = release(built)
    assert verify_release(built.workspace.root).counts["samples"] == 80
    named = damage(built, release_id, how)
    with pytest.raises(DataError) as raised:
        verify_release(built.workspace.root)
    assert named in str(raised.value)


def test_verify_sees_a_consistent_forgery_of_the_shard(built: Built) -> None:
    """Hashes alone are not enough: here shard, name, index and manifest agree, and a member is doubled."""
    import hashlib

    from mmdata.publish.release import sha256_of
    from mmdata.releases.manifest import manifest_digest
    from mmdata.samples import INDEX
    from mmdata.storage.tables import write_table
    from mmdata.storage.tar import END

    release_id = release(built)
    folder = built.workspace.release_dir(release_id)
    manifest = json.loads((folder / "manifest.json").read_text())
    old = manifest["shards"][0]
    data = (built.workspace.shards_dir / old["name"]).read_bytes()
    with tarfile.open(built.workspace.shards_dir / old["name"]) as tar:
        first = tar.getmembers()[0]
    forged = data[: -len(END)] + data[: first.offset_data + -(-first.size // 512) * 512] + END
    digest = hashlib.sha256(forged).hexdigest()
    new = {**old, "sha256": digest, "bytes": len(forged), "name": old["name"][:-16] + digest[:12] + ".tar"}
    (built.workspace.shards_dir / new["name"]).write_bytes(forged)
    manifest["shards"][0] = new
    index = folder / "index.parquet"
    renamed = pl.read_parquet(index.path).with_columns(pl.col("shard").replace(old["name"], new["name"]))
    write_table(index, renamed.to_arrow().cast(INDEX))
    digest, size = sha256_of(index)
    manifest["files"]["index.parquet"] = {"sha256": digest, "bytes": size}
    manifest["digest"] = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="occurs more than once"):
        verify_release(built.workspace.root)


def test_a_release_can_be_moved(built: Built, tmp_path: Path) -> None:
    release(built)
    shutil.move(str(built.workspace.root), tmp_path / "elsewhere")
    assert verify_release(UPath(tmp_path / "elsewhere")).counts["samples"] == 80


def test_shards_are_verified_before_a_manifest_vouches_for_them(built: Built) -> None:
    first = release(built)
    add_parts(built, {"web-000002": range(80, 100)})
    select_samples(built.corpus, built.workspace)
    draft = read_draft(built.workspace).release_id
    with pytest.raises(DataError, match="no shards yet"):
        verify_shards(built.workspace, draft)
    report = write_shards(built.corpus, built.workspace)
    assert verify_shards(built.workspace, draft).counts["shards_read"] == report.counts["shards_written"]
    old = set(paths_of(built, first))
    victim = next(path for path in built.workspace.shards_dir.glob("train-c0001*.tar") if str(path) not in old)
    data = bytearray(victim.read_bytes())
    data[600] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(DataError, match=victim.name):
        verify_shards(built.workspace, draft)


@pytest.mark.parametrize("publish", [write_shards, write_instructions, publish_release])
def test_a_corpus_that_changed_since_the_selection_is_not_published(built: Built, publish: Callable) -> None:
    release(built)
    changed = built.corpus.model_copy(update={"shards": built.corpus.shards.model_copy(update={"shard_mb": 1.0})})
    with pytest.raises(DataError, match="changed since its samples were selected"):
        publish(changed, built.workspace)


def test_a_part_that_changed_since_the_selection_is_not_published(built: Built) -> None:
    select_samples(built.corpus, built.workspace)
    add_parts(built, {"web-000001": range(200, 240)})
    with pytest.raises(DataError, match="changed since its samples were selected"):
        write_shards(built.corpus, built.workspace)


def test_the_same_release_has_the_same_digest(built: Built, tmp_path: Path) -> None:
    release(built)
    first = open_release(built.workspace.root).manifest["digest"]
    shutil.rmtree(str(built.workspace.root))
    other = build(str(tmp_path / "a"), PARTS)
    release(other)
    assert open_release(other.workspace.root).manifest["digest"] == first
