"""Clips and sound in shards: their members, facts and places, and the readers of others."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from upath import UPath

from mmdata.cli.console import summary_line
from mmdata.errors import DataError
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release, sha256_of
from mmdata.publish.verify import verify_release, verify_shards
from mmdata.releases.manifest import open_release
from mmdata.samples import key_uid, sample_uid
from mmdata.select.stage import select_samples
from mmdata.shards.members import estimate_bytes
from mmdata.shards.stage import write_shards
from mmdata.stage import StageReport
from mmdata.workspace.layout import Catalog, Part, Workspace
from tests.support import modalities
from tests.support.workspaces import SELECT_ALL, Built, release

REPEATED = {**SELECT_ALL, "oversample": {"threshold": 1.0, "max_repeats": 3}}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of every signature, the rare ones repeated, that nobody changes."""
    built = modalities.build(tmp_path_factory.mktemp("mixed"), select=REPEATED)
    release(built)
    return built


def folder_of(built: Built) -> UPath:
    return built.workspace.release_dir(str(built.workspace.latest()))


def index_of(built: Built) -> pl.DataFrame:
    return pl.read_parquet((folder_of(built) / "index.parquet").path)


def paths_of(built: Built) -> list[str]:
    return [
        str(built.workspace.shards_dir / shard["name"]) for shard in open_release(folder_of(built)).manifest["shards"]
    ]


def members_of(built: Built) -> dict[str, dict[str, bytes]]:
    """Key -> extension -> bytes, in the order in which they lie."""
    found: dict[str, dict[str, bytes]] = {}
    for path in paths_of(built):
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, ext = info.name.partition(".")
                found.setdefault(key, {})[ext] = tar.extractfile(info).read()  # type: ignore[union-attr]
    return found


def test_every_member_comes_out_as_it_was_stored_and_in_its_order(built: Built) -> None:
    wanted = {one["uid"]: one["members"] for one in every_sample()}
    found = members_of(built)
    assert {key_uid(key) for key in found} == set(wanted)
    for key, members in found.items():
        uid = key_uid(key)
        assert list(members) == [*(ext for ext, _ in wanted[uid]), "json", "txt"]
        assert members["txt"].decode() == built.captions[uid]
        assert all(members[ext] == data for ext, data in wanted[uid])


def every_sample() -> list[dict[str, Any]]:
    clips = [modalities.clip(v, n) for v in range(modalities.VIDEOS) for n in range(modalities.CLIPS)]
    others = [*map(modalities.picture, range(30)), *map(modalities.sound, range(12)), *map(modalities.text, range(10))]
    return [*clips, *others]


def test_the_facts_of_a_clip_say_what_was_cut_and_a_pictures_do_not(built: Built) -> None:
    found = members_of(built)
    clip, picture = modalities.clip(2, 3), modalities.picture(1)
    facts = json.loads(found[clip["uid"]]["json"])
    assert {name: facts[name] for name in ("start_s", "end_s", "duration_s", "fps", "audio_s")} == {
        "start_s": 30.0,
        "end_s": 40.0,
        "duration_s": 10.0,
        "fps": 25.0,
        "audio_s": 10.0,
    }
    assert json.loads(facts["frame_times_s"]) == clip["frame_times_s"]
    assert facts["signature"] == "audio+text+video"
    assert json.loads(facts["extra"])["category_1"] == "Food"
    plain = json.loads(found[picture["uid"]]["json"])
    names = ("start_s", "duration_s", "frame_times_s", "audio_s", "synthetic", "transcript")
    assert [plain[name] for name in names] == [-1.0, -1.0, "[]", -1.0, "", ""]
    spoken = json.loads(found[modalities.picture(10)["uid"]]["json"])
    assert (spoken["synthetic"], spoken["signature"]) == ("audio", "audio+image+text")
    heard = modalities.sound(3)
    assert json.loads(found[heard["uid"]]["json"])["transcript"] == heard["transcript"]
    assert json.loads(found[modalities.sound(1)["uid"]]["json"])["transcript"] == ""


def test_each_copy_has_a_seed_of_its_own_and_the_first_has_none(built: Built) -> None:
    index, found = index_of(built), members_of(built)
    assert set(index.filter(pl.col("copy") == 0)["augment"]) == {0}
    copies = index.filter(pl.col("copy") > 0)
    assert copies["augment"].n_unique() == len(copies) > 10
    for key, seed in index.select("key", "augment").iter_rows():
        assert json.loads(found[key]["json"])["augment"] == seed


def test_the_index_knows_frames_seconds_and_pixels(built: Built) -> None:
    rows = {row["key"]: row for row in index_of(built).iter_rows(named=True)}
    clip, sound, picture = (
        rows[one["uid"]] for one in (modalities.clip(0, 0), modalities.sound(1), modalities.picture(1))
    )
    assert (clip["frames"], clip["seconds"], clip["pixels"]) == (4, 10.0, 4 * 32 * 24)
    assert (sound["frames"], sound["seconds"], sound["pixels"]) == (0, 3.0, 0)
    assert (picture["frames"], picture["seconds"], picture["pixels"]) == (0, None, 32 * 24)


def test_the_estimate_counts_every_member(built: Built) -> None:
    index = index_of(built)
    selection = pl.read_parquet((folder_of(built) / "selection.parquet").path).filter("keep")
    estimated = sum(estimate_bytes(built.workspace, selection).values())
    assert estimated == pytest.approx(int(index["length"].sum()), rel=0.05)


def test_other_bytes_of_a_member_are_another_shard(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = modalities.build(tmp_path / "same", select=REPEATED)
    release(again)
    names = {Path(path).name for path in paths_of(built)}
    assert {Path(path).name for path in paths_of(again)} == names
    changed = modalities.clip(2, 3)
    changed["members"][2] = ("002.jpg", modalities.jpeg(4))
    real = modalities.clip
    monkeypatch.setattr(modalities, "clip", lambda v, n: changed if (v, n) == (2, 3) else real(v, n))
    other = modalities.build(tmp_path / "other", select=REPEATED)
    release(other)
    differing = {Path(path).name for path in paths_of(other)} - names
    copies = index_of(other).filter(pl.col("uid") == changed["uid"])["shard"]
    assert differing == set(copies)


def test_webdataset_reads_frames_and_sound(built: Built) -> None:
    import av
    import webdataset as wds

    dataset = wds.WebDataset(paths_of(built), shardshuffle=False, empty_check=False).decode("pil")
    seen: dict[str, int] = {}
    for sample in dataset:
        frames = [name for name in sample if name[0].isdigit()]
        assert all(isinstance(sample[name], Image.Image) for name in frames)
        signature = sample["json"]["signature"]
        seen[signature] = seen.get(signature, 0) + 1
        assert len(frames) == (4 if "video" in signature else 0)
        if "flac" in sample:
            with av.open(io.BytesIO(sample["flac"])) as sound:
                heard = sum(frame.samples for frame in sound.decode(audio=0))
            assert heard == round(sample["json"]["audio_s"] * 16_000)
        assert sample["txt"] == built.captions[key_uid(sample["__key__"])]
    assert len(seen) == 6
    assert sum(seen.values()) == len(index_of(built))


def test_wids_reads_clips_by_number(built: Built) -> None:
    import wids

    index = folder_of(built) / "wids.json"
    dataset = wids.ShardListDataset(str(index), base=str(index.parent), keep=True)
    for number in range(0, len(dataset), 7):
        sample = dataset[number]
        uid = key_uid(sample["__key__"])
        assert sample[".txt"] == built.captions[uid]
        if "video" in sample[".json"]["signature"]:
            assert np.asarray(sample[".003.jpg"]).shape == (24, 32, 3)


def test_energon_hands_out_every_sample_whole(built: Built) -> None:
    config = json.loads((folder_of(built) / ".nv-meta/dataset.yaml").read_text())
    assert config["__class__"] == "CrudeWebdataset"
    energon = pytest.importorskip("megatron.energon")
    from tests.support.energon_client import Whole

    worker = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    settings = {"batch_size": 1, "worker_config": worker, "task_encoder": Whole()}
    train = energon.get_train_dataset(
        folder_of(built).path, shuffle_buffer_size=None, max_samples_per_sequence=None, repeat=False, **settings
    )
    found: dict[str, list[str]] = {}
    for dataset in (train, energon.get_val_dataset(folder_of(built).path, **settings)):
        for (sample,) in energon.get_loader(dataset):
            found[sample.__key__] = sample.members
    assert found == {key: sorted(members) for key, members in members_of(built).items()}


def spoiled(built: Built, tmp_path: Path, member: str, data: bytes) -> Workspace:
    """A copy of the release in which one member has other bytes, and every hash is right for them."""
    root = tmp_path / "spoiled"
    shutil.copytree(built.workspace.root.path, root)
    workspace = Workspace(root)
    folder = workspace.release_dir(str(workspace.latest()))
    shards = json.loads((folder / "shards.json").read_text())
    for shard in shards["shards"]:
        path = workspace.shards_dir / shard["name"]
        with tarfile.open(path.path) as tar:
            place = {info.name: (info.offset_data, info.size) for info in tar}.get(member)
        if place is None:
            continue
        content = bytearray(path.read_bytes())
        content[place[0] : place[0] + place[1]] = data[: place[1]].ljust(place[1], b"\0")
        path.write_bytes(content)
        sha256, _ = sha256_of(path)
        name = shard["name"].replace(shard["sha256"][:12], sha256[:12])
        path.rename(workspace.shards_dir / name)
        index = pl.read_parquet((folder / "index.parquet").path)
        index = index.with_columns(pl.col("shard").replace(shard["name"], name))
        index.write_parquet((folder / "index.parquet").path)
        shard |= {"name": name, "sha256": sha256}
    (folder / "shards.json").write_text(json.dumps(shards))
    return workspace


def uid_of(video: int, number: int) -> str:
    return str(modalities.clip(video, number)["uid"])


@pytest.mark.parametrize(
    ("member", "data", "told"),
    [
        ("000.jpg", b"GIF89a", r"000\.jpg: its bytes are not a jpg"),
        ("003.jpg", b"\x89PNG", r"003\.jpg: its bytes are not a jpg"),
        ("flac", b"RIFF....WAVE", "flac: its bytes are not a flac"),
    ],
)
def test_bytes_of_another_kind_are_named(built: Built, tmp_path: Path, member: str, data: bytes, told: str) -> None:
    uid = uid_of(0, 1)
    workspace = spoiled(built, tmp_path, f"{uid}.{member}", data)
    with pytest.raises(DataError, match=rf"member {uid}\.{told}"):
        verify_shards(workspace, str(workspace.latest()))


def test_sound_and_frames_that_end_early_are_found_by_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, sound = modalities.clip(0, 1), modalities.sound(1)
    frame, voice = clip["members"][2][1], sound["members"][0][1]
    clip["members"][2] = ("002.jpg", frame[:300])
    sound["members"][0] = ("flac", voice[: len(voice) // 2])
    real_clip, real_sound = modalities.clip, modalities.sound
    monkeypatch.setattr(modalities, "clip", lambda v, n: clip if (v, n) == (0, 1) else real_clip(v, n))
    monkeypatch.setattr(modalities, "sound", lambda n: sound if n == 1 else real_sound(n))
    built = modalities.build(tmp_path)
    release(built)
    verify_release(built.workspace.root)
    with pytest.raises(DataError) as raised:
        verify_release(built.workspace.root, decode=True)
    assert f"member {clip['uid']}.002.jpg: cannot be read" in str(raised.value)
    assert f"member {sound['uid']}.flac: cannot be read" in str(raised.value)
    assert "2 problem(s)" in str(raised.value)


def test_a_sample_that_lacks_what_its_signature_names_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, real = modalities.clip(0, 1), modalities.clip
    clip["members"].pop()
    monkeypatch.setattr(modalities, "clip", lambda v, n: clip if (v, n) == (0, 1) else real(v, n))
    built = modalities.build(tmp_path)
    release(built)
    with pytest.raises(DataError, match=rf"sample {clip['uid']} is audio\+text\+video, but contains no audio"):
        verify_release(built.workspace.root)


def publish_pictures(root: Path, parts: dict[str, list[dict[str, Any]]], **select: Any) -> StageReport:
    """Make a release of the parts; the report of its shards."""
    shards = {"shard_mb": 0.1, "validation_fraction": 0}
    built = Built(modalities.corpus_at(root, select={**SELECT_ALL, **select}, shards=shards), Workspace(root))
    catalog = {name: Part(name, "web", "inbox/x", 0, len(own), name) for name, own in parts.items()}
    built.workspace.write_catalog(Catalog(parts=catalog))
    for name, own in parts.items():
        modalities.finish(built, catalog[name], own)
    select_samples(built.corpus, built.workspace)
    report = write_shards(built.corpus, built.workspace)
    write_instructions(built.corpus, built.workspace)
    publish_release(built.corpus, built.workspace)
    return report


def test_copies_are_no_new_samples_whatever_kind_of_copy_they_are(tmp_path: Path) -> None:
    own = [modalities.picture(number) for number in range(20)]  # two of them with a voice, which is rare
    first = publish_pictures(tmp_path, {"web-000001": own})
    assert first.counts["samples_new"] == 20
    repeated = publish_pictures(tmp_path, {"web-000001": own}, oversample={"threshold": 1.0, "max_repeats": 3})
    assert repeated.counts["samples"] > 20
    assert repeated.counts["shards_new"] > 0
    same_rows = publish_pictures(tmp_path, {"web-000000": own, "web-000001": own})
    mirrored = [
        picture | {"uid": sample_uid(url, picture["caption"]), "url": url, "clip_score": 0.9}
        for picture in own
        if (url := picture["url"].replace("example.org", "mirror.example"))
    ]
    mirrors = publish_pictures(tmp_path, {"web-000001": own, "web-000002": mirrored})
    assert mirrors.counts["shards_new"] > 0
    for report in (repeated, same_rows, mirrors):
        assert report.counts["samples_new"] == 0
        assert "samples new" not in summary_line(report)
    grown = publish_pictures(tmp_path, {"web-000001": own, "web-000002": [*mirrored, modalities.picture(999)]})
    assert grown.counts["samples_new"] == 1
