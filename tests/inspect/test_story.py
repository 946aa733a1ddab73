"""A sample's whole story."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

import mmdata.inspect.story
from mmdata.errors import UserError
from mmdata.inspect.story import Story, explain
from mmdata.samples import INDEX, sample_uid, table_of
from mmdata.storage.atomic import publish_bytes
from mmdata.storage.tables import scan_tables, write_table
from tests.support import modalities, workspaces
from tests.support.standin_stages import Small, make_small

UID = sample_uid("http://example.org/a-red-boat.jpg", "a red boat")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return make_small(tmp_path, monkeypatch)


def test_the_story_runs_from_the_row_to_the_shard(small: Small) -> None:
    small.build()
    release = small.workspace.release_dir(str(small.workspace.latest()))
    place = {"uid": UID, "key": UID, "shard": "train-a-00000-0123.tar", "offset": 1024, "length": 4096}
    shape = {
        "signature": "image+text",
        "split": "train",
        "copy": 0,
        "repeats": 1,
        "tokens": 4,
        "pixels": 1,
        "frames": 0,
        "augment": 0,
    }
    write_table(release / "index.parquet", table_of([place | shape], INDEX))
    lines = (
        f'{{"input_image": "tar://{UID}.jpg::shards/train-a-00000-0123.tar"}}\n{{"input_image": "tar://f.jpg::x"}}\n'
    )
    publish_bytes(release / "instruct-record-train.jsonl", lines.encode())

    story = explain(small.corpus, small.workspace, UID)
    (sighting,) = story.sightings
    assert (sighting.part.name, sighting.slice_name, sighting.rows["caption"]) == ("web-000000", "0000", "a red boat")
    assert sighting.media is not None
    assert sighting.media["status"] == "success"
    assert sighting.features is not None
    assert sighting.features["clip_score"] == pytest.approx(0.1)
    assert story.selection is not None
    assert story.verdict == f"in release {small.workspace.latest()}, 1x, split train"
    assert [(one["shard"], one["offset"]) for one in story.places] == [("train-a-00000-0123.tar", 1024)]
    assert story.instructions == {"instruct-record-train.jsonl": 1}


def test_the_first_digits_are_enough_and_a_copys_key_will_do(small: Small) -> None:
    small.build()
    assert explain(small.corpus, small.workspace, UID[:9].upper()).uid == UID
    assert explain(small.corpus, small.workspace, f"{UID}_r01").uid == UID


def test_digits_that_several_share_are_refused_by_name(small: Small) -> None:
    small.write("a.txt", *(f"boat {number}" for number in range(40)))
    small.build()
    uids = [sample_uid(f"http://example.org/boat-{n}.jpg", f"boat {n}") for n in range(40)]
    shared = next(uid[0] for uid in uids if sum(other[0] == uid[0] for other in uids) > 1)
    with pytest.raises(UserError, match="give more digits"):
        explain(small.corpus, small.workspace, shared)


@pytest.mark.parametrize("wrong", ["", "xyz", "0" * 33, "*"])
def test_what_is_no_uid_is_refused(small: Small, wrong: str) -> None:
    with pytest.raises(UserError, match="is not a uid"):
        explain(small.corpus, small.workspace, wrong)


def test_a_dropped_sample_says_why(small: Small) -> None:
    small.write("a.txt", "gone", "fine")
    small.build()
    story = explain(small.corpus, small.workspace, sample_uid("http://example.org/gone.jpg", "gone"))
    assert story.verdict.endswith("media:http_404")


def test_a_sample_of_a_part_that_is_not_released_says_what_its_part_waits_for(small: Small) -> None:
    small.write("c.txt", "boom")
    small.build()
    story = explain(small.corpus, small.workspace, sample_uid("http://example.org/boom.jpg", "boom"))
    assert story.sightings[0].media is None
    assert "part web-000002: media: not finished" in story.verdict


def test_before_the_first_release_there_is_a_story_too(small: Small) -> None:
    small.build()
    (small.workspace.releases_dir / "latest").unlink()
    assert "there is none yet" in explain(small.corpus, small.workspace, UID).verdict


def parts_of(story: Story) -> list[str]:
    return [sighting.part.name for sighting in story.sightings]


def test_a_released_sample_is_found_without_looking_through_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = workspaces.build(str(tmp_path), {f"web-{n:06d}": range(10 * n, 10 * n + 10) for n in range(4)})
    workspaces.release(built)
    workspaces.add_parts(built, {"web-000009": [90, 91]})  # not in the release: it may hold the sample, too
    searched: set[str] = set()

    def scan(paths: Sequence[UPath]) -> pl.LazyFrame:
        searched.update(path.parent.parent.name for path in paths if path.parent.name == "rows")
        return scan_tables(paths)

    monkeypatch.setattr(mmdata.inspect.story, "scan_tables", scan)
    assert parts_of(explain(built.corpus, built.workspace, workspaces.uid_of(23))) == ["web-000002"]
    assert searched == {"web-000002", "web-000009"}
    assert parts_of(explain(built.corpus, built.workspace, workspaces.uid_of(91))) == ["web-000009"]


def test_a_sample_of_several_parts_is_told_with_all_of_them(tmp_path: Path) -> None:
    built = workspaces.build(str(tmp_path), {"web-000000": range(10), "web-000001": range(5, 15)})
    workspaces.release(built)
    assert parts_of(explain(built.corpus, built.workspace, workspaces.uid_of(7))) == ["web-000000", "web-000001"]
    workspaces.add_parts(built, {"web-000002": [3, 30]})
    assert parts_of(explain(built.corpus, built.workspace, workspaces.uid_of(3))) == ["web-000000", "web-000002"]


def test_a_part_that_changed_since_the_release_is_looked_through(tmp_path: Path) -> None:
    built = workspaces.build(str(tmp_path), {"web-000000": range(10), "web-000001": range(10, 20)})
    workspaces.release(built)
    workspaces.add_parts(built, {"web-000001": range(40, 50)})
    assert parts_of(explain(built.corpus, built.workspace, workspaces.uid_of(44))) == ["web-000001"]


def test_a_clip_is_told_with_its_members_and_its_copies(tmp_path: Path) -> None:
    built = modalities.build(tmp_path)
    workspaces.release(built)
    uid = modalities.clip(0, 2)["uid"]
    story = explain(built.corpus, built.workspace, uid)
    (sighting,) = story.sightings
    assert sighting.media is not None
    assert sighting.media["further"] == "001.jpg, 002.jpg, 003.jpg, flac"
    assert sighting.rows["start_s"] == 20.0
    assert [(place["frames"], place["seconds"]) for place in story.places] == [(4, 10.0)]
    assert story.instructions["instruct-record-train.jsonl"] >= 1
