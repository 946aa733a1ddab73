"""HowTo100M: an index of videos and their captions become clips, without ever holding all captions in memory."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmdata.engine.freshness import plan_parts
from mmdata.errors import DataError, UserError
from mmdata.samples import sample_uid
from mmdata.sources import captions
from mmdata.sources.captions import CaptionSource
from tests.sources.conftest import Inbox, captions_json

INDEX = "video_id,category_1,category_2,rank,task_id\n"
ID = "abcdefghi{:02d}"


@pytest.fixture
def howto(inbox: Inbox) -> Inbox:
    lines = "".join(f"{ID.format(n)},Food,Recipes,{n},{100 + n}\n" for n in range(6))
    inbox.text("HowTo100M_v1.csv", INDEX + lines)
    captions = {
        ID.format(0): captions_json((0, 6, "cut the bread"), (6, 12, "and toast it"), (30, 41, "eat it")),
        ID.format(1): captions_json((0, 11, 'say "hi" {now}'), (11, 22, "\\ 猫 é")),
        ID.format(2): captions_json(),
        ID.format(4): {"start": [0], "end": [1, 2], "text": ["uneven"]},
        ID.format(5): captions_json((0, float("nan"), "no time")),
        "another one": captions_json((0, 5, "not in the index")),
    }
    (inbox.folder / "raw_caption.json").write_text(json.dumps(captions), encoding="utf-8")
    inbox.source = {"kind": "howto100m", "captions": str(inbox.folder / "raw_caption.json"), "slice_rows": 4}
    return inbox


def test_a_video_gives_its_clips_and_a_bad_one_is_kept_with_its_reason(howto: Inbox) -> None:
    rows = howto.rows()
    by_video: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_video.setdefault(json.loads(row["extra"])["video_id"], []).append(row)
    first = sorted(by_video[ID.format(0)], key=lambda row: row["start_s"])
    assert [(row["start_s"], row["end_s"], row["caption"]) for row in first] == [
        (0, 12, "cut the bread and toast it"),
        (30, 41, "eat it"),
    ]
    assert first[0]["url"] == "https://www.youtube.com/watch?v=abcdefghi00"
    assert first[0]["uid"] == sample_uid(first[0]["url"], first[0]["caption"], 0.0, 12.0)
    extra = json.loads(first[0]["extra"])
    assert extra["captions"] == [[0.0, 6.0, "cut the bread"], [6.0, 12.0, "and toast it"]]
    assert (extra["category_1"], extra["task_id"]) == ("Food", "100")
    assert {row["kind"] for row in rows} == {"video"}
    assert sorted(row["caption"] for row in by_video[ID.format(1)]) == sorted(['say "hi" {now}', "\\ 猫 é"])
    problems = {video: [row["problem"] for row in video_rows] for video, video_rows in by_video.items()}
    assert problems[ID.format(2)] == problems[ID.format(3)] == problems[ID.format(5)] == ["no_captions"]
    assert problems[ID.format(4)] == ["bad_captions"]


def test_videos_are_counted_as_rows_and_clips_as_samples(howto: Inbox) -> None:
    howto.look()
    report = howto.read("web-000000")
    counts = {"rows": 6, "samples": 8, "uids": 8, "usable": 4, "repeated": 0, "bad": 4, "captions_bad_times": 1}
    assert report.counts == counts
    assert report.reasons == {"no_captions": 3, "bad_captions": 1}


def test_new_captions_and_other_clip_lengths_make_the_part_stale(howto: Inbox) -> None:
    def stale() -> list[str]:
        return [plan.part.name for plan in plan_parts(howto.corpus, howto.workspace) if "rows" in plan.stale]

    before = howto.rows()
    howto.look()
    assert stale() == []
    longer = howto.corpus.model_copy(update={"clips": howto.corpus.clips.model_copy(update={"min_clip_s": 1.0})})
    assert [p.part.name for p in plan_parts(longer, howto.workspace) if "rows" in p.stale] == ["web-000000"]
    path = howto.folder / "raw_caption.json"
    changed = json.loads(path.read_text(encoding="utf-8"))
    changed[ID.format(2)] = captions_json((0, 12, "now it speaks"))
    path.write_text(json.dumps(changed), encoding="utf-8")
    howto.look()
    assert stale() == ["web-000000"]
    howto.read("web-000000")
    after = howto.rows(["web-000000"])
    assert {row["uid"] for row in after} - {row["uid"] for row in before} == {
        sample_uid("https://www.youtube.com/watch?v=abcdefghi02", "now it speaks", 0.0, 12.0)
    }


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_a_copied_corpus_has_nothing_to_do(tmp_path: Path, suffix: str) -> None:
    here, there = Inbox(tmp_path / "here"), tmp_path / "there"
    here.folder.mkdir()
    here.text("HowTo100M_v1.csv", f"{INDEX}{ID.format(0)},a,b,1,1\n")
    if suffix == "json":
        (here.folder / "raw.json").write_text(json.dumps({ID.format(0): captions_json((0, 12, "cut it"))}))
    else:
        (here.folder / f"{ID.format(0)}.csv").write_text("start,end,text\n0,12,cut it\n")
    name = {"json": "raw.json", "csv": "{video_id}.csv"}[suffix]
    here.source = {"kind": "howto100m", "captions": str(here.folder / name)}
    (row,) = here.rows()
    shutil.copytree(here.folder, there, copy_function=shutil.copy)  # with new times of change
    copied = Inbox(there, here.source | {"captions": str(there / name)})
    assert copied.look().counts["parts_changed"] == 0
    assert copied.live() == ["web-000000"]
    assert [plan.stale for plan in plan_parts(copied.corpus, copied.workspace)] == [("media", "features")]
    assert copied.rows() == [row]


def test_unchanged_captions_are_not_read_again(howto: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    howto.look()
    path = howto.folder / "raw_caption.json"
    path.touch()
    before = howto.workspace.catalog().parts
    howto.look()
    assert howto.workspace.catalog().parts == before, "the time changed and the content did not"
    howto.read("web-000000")
    with monkeypatch.context() as patch:
        patch.setattr(captions, "file_sha256", lambda path: pytest.fail("read again"))
        howto.look()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("cut the bread", "cut the broad"), encoding="utf-8")
    assert howto.look().counts["parts_changed"] == 1, "of equal size"


@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_captions_that_cannot_be_read_are_named_and_hold_back_what_was_read(howto: Inbox, how: str) -> None:
    howto.rows()
    path = howto.folder / "raw_caption.json"
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    howto.look()
    (entry,) = howto.workspace.catalog().files.values()
    assert entry["status"] == "unreadable"
    assert re.search(r"raw_caption\.json: " + ("cannot be read" if how == "gone" else "byte 100"), entry["error"])
    assert howto.live() == ["web-000000"]
    assert not any(plan.stale for plan in plan_parts(howto.corpus, howto.workspace) if "rows" in plan.stale)


def test_captions_that_change_after_the_look_are_not_read(howto: Inbox) -> None:
    howto.look()
    path = howto.folder / "raw_caption.json"
    path.write_text(json.dumps({ID.format(0): captions_json((0, 12, "other words"))}), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"raw_caption\.json: has changed since it was catalogued.*Remedy: `mmdata build`"
    ):
        howto.read("web-000000")


def test_an_index_without_ids_is_refused(inbox: Inbox) -> None:
    inbox.text("index.csv", "id,category\n1,2\n")
    inbox.text("../captions.json", "{}")
    inbox.source = {"kind": "howto100m", "captions": str(inbox.folder / "captions.json")}
    with pytest.raises(UserError, match="no column video_id"):
        inbox.look()


def test_an_id_that_is_a_path_is_no_id(howto: Inbox) -> None:
    secret = howto.folder / "secret.csv"
    secret.write_text("start,end,text\n0,5,secret\n")
    (howto.folder / "inbox-captions").mkdir()
    (howto.folder / f"inbox-captions/{ID.format(0)}.csv").write_text("start,end,text\n0,5,public\n")
    howto.text("HowTo100M_v1.csv", INDEX + "../secret,a,b,1,1\n" + '"a b",a,b,1,1\n,a,b,1,1\n')
    howto.source = {"kind": "howto100m", "captions": str(howto.folder / "inbox-captions/{video_id}.csv")}
    assert [row["problem"] for row in howto.rows()] == ["bad_video_id"] * 3


VTT = """WEBVTT
Kind: captions

NOTE something

1
00:00:00.000 --> 00:00:06.000 align:start
cut the <c>bread</c>
into slices

00:06.000 --> 00:12.500
toast &amp; butter
"""
SRT = """1
00:00:00,000 --> 00:00:06,000
cut the bread
into slices
2
00:00:06,000 --> 00:00:12,500
toast & butter
""".replace("\n", "\r\n")
CSV = "start,end,text\n0,6,cut the bread into slices\n6.0,12.5,toast & butter\n,,broken\n"


@pytest.mark.parametrize(("suffix", "text"), [("vtt", VTT), ("srt", SRT), ("csv", CSV)])
def test_a_file_a_video_gives_the_same_clips(inbox: Inbox, suffix: str, text: str) -> None:
    inbox.text("index.csv", f"{INDEX}{ID.format(0)},a,b,1,1\n{ID.format(1)},a,b,1,1\n")
    folder = inbox.folder / "told"
    folder.mkdir()
    (folder / f"{ID.format(0)}.{suffix}").write_bytes(text.encode())
    inbox.source = {"kind": "howto100m", "captions": str(folder / f"{{video_id}}.{suffix}")}
    (clip, missing) = inbox.rows()
    assert (clip["caption"], clip["start_s"], clip["end_s"]) == ("cut the bread into slices toast & butter", 0, 12.5)
    assert missing["problem"] == "no_captions"


def test_an_encoding_that_is_named_makes_the_part_stale_and_gives_its_clips(inbox: Inbox) -> None:
    inbox.text("index.csv", f"{INDEX}{ID.format(0)},a,b,1,1\n")
    folder = inbox.folder / "told"
    folder.mkdir()
    (folder / f"{ID.format(0)}.csv").write_bytes("start,end,text\n0,12,хлеб и масло\n".encode("cp1251"))
    inbox.source = {"kind": "howto100m", "captions": str(folder / "{video_id}.csv")}
    assert [row["problem"] for row in inbox.rows()] == ["bad_encoding"]
    inbox.source |= {"captions_encoding": "cp1251"}
    assert [plan.stale[0] for plan in plan_parts(inbox.corpus, inbox.workspace)] == ["rows"]
    assert [row["caption"] for row in inbox.rows()] == ["хлеб и масло"]


def test_a_clip_of_too_many_words_is_kept_by_its_beginning(inbox: Inbox) -> None:
    inbox.text("index.csv", f"{INDEX}{ID.format(0)},a,b,1,1\n")
    (inbox.folder / "raw.json").write_text(json.dumps({ID.format(0): captions_json((0, 12, "word " * 50_000))}))
    inbox.source = {"kind": "howto100m", "captions": str(inbox.folder / "raw.json")}
    (row,) = inbox.rows()
    assert (row["problem"], len(row["caption"])) == ("caption_too_long", 10_000)
    assert "captions" not in json.loads(row["extra"])


def test_a_new_file_of_captions_makes_the_part_stale_and_gives_its_clips(inbox: Inbox) -> None:
    inbox.text("index.csv", f"{INDEX}{ID.format(0)},a,b,1,1\n{ID.format(1)},a,b,1,1\n")
    folder = inbox.folder / "told"
    folder.mkdir()
    (folder / f"{ID.format(0)}.csv").write_text(CSV)
    inbox.source = {"kind": "howto100m", "captions": str(folder / "{video_id}.csv")}
    assert [row["problem"] for row in inbox.rows()] == [None, "no_captions"]
    (folder / f"{ID.format(1)}.csv").write_text(CSV)
    assert [plan.stale for plan in plan_parts(inbox.corpus, inbox.workspace)] == [("media", "features")]
    inbox.look()
    assert [plan.stale[0] for plan in plan_parts(inbox.corpus, inbox.workspace)] == ["rows"]
    assert [row["problem"] for row in inbox.rows()] == [None, None]


def test_the_same_input_gives_the_same_bytes(howto: Inbox, tmp_path: Path) -> None:
    def tables() -> dict[str, bytes]:
        folder = Path(str(howto.workspace.part_dir("web-000000"))) / "rows"
        return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}

    howto.rows()
    first = tables()
    shutil.rmtree(howto.corpus.workspace)
    howto.rows()
    assert len(first) == 2
    assert tables() == first


def test_a_killed_run_goes_on_at_the_slice_where_it_stopped(howto: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    howto.look()
    read: list[int] = []
    whole = CaptionSource.read

    def watched(self: CaptionSource, ids: Sequence[str]) -> dict[str, Any]:
        read.append(len(ids))
        if len(read) == 2:
            raise KeyboardInterrupt
        return whole(self, ids)

    monkeypatch.setattr(CaptionSource, "read", watched)
    with pytest.raises(KeyboardInterrupt):
        howto.read("web-000000")
    report = howto.read("web-000000")
    assert read == [4, 2, 2], "videos of the first slice are not read again"
    assert (report.slices_done, report.slices_reused, report.counts["rows"]) == (1, 1, 6)


def test_a_video_that_stands_twice_is_one_with_copies(howto: Inbox) -> None:
    line = f"{ID.format(1)},Food,Recipes,1,101\n"
    howto.text("HowTo100M_v1.csv", INDEX + 2 * line)
    rows = howto.rows()
    assert [row["copies"] for row in rows] == [2, 2]


def test_other_clip_settings_leave_pictures_alone(inbox: Inbox) -> None:
    inbox.pairs("a.parquet", 3)
    inbox.rows()
    longer = inbox.corpus.model_copy(update={"clips": inbox.corpus.clips.model_copy(update={"min_clip_s": 1.0})})
    (plan,) = plan_parts(longer, inbox.workspace)
    assert "rows" not in plan.stale
