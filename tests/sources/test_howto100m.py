"""HowTo100M: an index of videos and their captions become clips, without ever holding all captions in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.plan import plan_parts
from mmdata.samples import sample_uid
from mmdata.sources import captions as captions_module
from mmdata.sources.captions import CaptionSource, entries, open_index, subtitles
from tests.sources.conftest import Inbox

INDEX = "video_id,category_1,category_2,rank,task_id\n"
ID = "abcdefghi{:02d}"


def told(*rows: tuple[float, float, str]) -> dict[str, list[Any]]:
    return {"start": [r[0] for r in rows], "end": [r[1] for r in rows], "text": [r[2] for r in rows]}


@pytest.fixture
def howto(inbox: Inbox) -> Inbox:
    lines = "".join(f"{ID.format(n)},Food,Recipes,{n},{100 + n}\n" for n in range(6))
    inbox.text("HowTo100M_v1.csv", INDEX + lines)
    captions = {
        ID.format(0): told((0, 6, "cut the bread"), (6, 12, "and toast it"), (30, 41, "eat it")),
        ID.format(1): told((0, 11, 'say "hi" {now}'), (11, 22, "\\ 猫 é")),
        ID.format(2): told(),
        ID.format(4): {"start": [0], "end": [1, 2], "text": ["uneven"]},
        ID.format(5): told((0, float("nan"), "no time")),
        "another one": told((0, 5, "not in the index")),
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
    problems = {video: [row["problem"] for row in own] for video, own in by_video.items()}
    assert problems[ID.format(2)] == problems[ID.format(3)] == problems[ID.format(5)] == ["no_captions"]
    assert problems[ID.format(4)] == ["bad_captions"]


def test_videos_are_counted_as_rows_and_clips_as_samples(howto: Inbox) -> None:
    howto.look()
    report = howto.read("web-000000")
    assert report.counts == {"rows": 6, "samples": 8, "uids": 8, "usable": 4, "repeated": 0, "bad": 4}
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
    changed[ID.format(2)] = told((0, 12, "now it speaks"))
    path.write_text(json.dumps(changed), encoding="utf-8")
    howto.look()
    assert stale() == ["web-000000"]
    howto.read("web-000000")
    after = howto.rows(["web-000000"])
    assert {row["uid"] for row in after} - {row["uid"] for row in before} == {
        sample_uid("https://www.youtube.com/watch?v=abcdefghi02", "now it speaks", 0.0, 12.0)
    }


def test_captions_that_are_not_there_are_named(howto: Inbox) -> None:
    (howto.folder / "raw_caption.json").unlink()
    howto.look()
    (entry,) = howto.workspace.catalog().files.values()
    assert entry["status"] == "unreadable"
    assert "raw_caption.json" in entry["error"]


def test_an_index_without_ids_is_refused(inbox: Inbox) -> None:
    inbox.text("index.csv", "id,category\n1,2\n")
    inbox.text("../captions.json", "{}")
    inbox.source = {"kind": "howto100m", "captions": str(inbox.folder / "captions.json")}
    with pytest.raises(UserError, match="no column video_id"):
        inbox.look()


def test_an_id_that_is_a_path_is_no_id(howto: Inbox) -> None:
    secret = howto.folder / "secret.csv"
    secret.write_text("start,end,text\n0,5,secret\n")
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
SRT = "\r\n".join(
    ["1", "00:00:00,000 --> 00:00:06,000", "cut the bread", "into slices", "2", "00:00:06,000 --> 00:00:12,500"]
    + ["toast & butter", ""]
)
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


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader_of_subtitles(text: str) -> None:
    subtitles(text)
    subtitles(f"00:00:01.000 --> 00:00:02.000\n{text}")


json_text = st.text(st.characters(codec="utf-8"), max_size=20)
videos = st.dictionaries(json_text, st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), json_text), max_size=4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(videos, st.booleans(), st.sampled_from([None, 1, "\t"]), st.integers(1, 50))
def test_the_index_finds_what_json_finds(
    tmp_path: Path, known: dict[str, Any], escaped: bool, indent: Any, chunk: int
) -> None:
    path = UPath(tmp_path / "captions.json")
    whole = {video: told(*rows) for video, rows in known.items()}
    path.write_text(json.dumps(whole, ensure_ascii=escaped, indent=indent), encoding="utf-8")
    data = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions_module, "CHUNK_BYTES", chunk)
        found = {video: json.loads(data[at : at + length]) for video, at, length in entries(path)}
    assert found == whole


def test_the_last_of_two_entries_counts(tmp_path: Path) -> None:
    one, two = json.dumps(told((0, 5, "old"))), json.dumps(told((0, 5, "new")))
    (tmp_path / "captions.json").write_text(f'{{"{ID.format(0)}": {one}, "{ID.format(0)}": {two}}}')
    source = CaptionSource(str(tmp_path / "captions.json"), UPath(tmp_path / "cache"))
    (caption,) = source.read([ID.format(0)])[ID.format(0)]
    assert caption.text == "new"  # type: ignore[union-attr]


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "brace": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "more": lambda data: data + b"]",
    "list": lambda data: b"[]",
    "shape": lambda data: b'{"a": [1]}',
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_broken_file_is_named_with_the_byte(howto: Inbox, spoil: Callable[[bytes], bytes]) -> None:
    path = howto.folder / "raw_caption.json"
    path.write_bytes(spoil(path.read_bytes()))
    howto.look()
    with pytest.raises(DataError, match=r"raw_caption\.json: byte \d+"):
        howto.read("web-000000")


def test_memory_does_not_grow_with_the_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions_module, "CHUNK_BYTES", 1 << 16)
    said = json.dumps(told(*((float(n), n + 1.0, "some words") for n in range(200))))

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.json"
        with path.open("w") as file:
            file.write("{")
            file.writelines(f'{", " if n else ""}"video{n:06d}": {said}' for n in range(count))
            file.write("}")
        tracemalloc.start()
        source = CaptionSource(str(path), UPath(tmp_path / "cache"))
        assert len(source.read(["video000007", "video000001"])) == 2
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(6000) < peak(300) + 2_000_000, "the captions of 6,000 videos are 40 MB"


def test_the_index_is_made_once(howto: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    howto.rows()
    monkeypatch.setattr(captions_module, "entries", lambda path: pytest.fail("scanned again"))
    path = UPath(howto.folder / "raw_caption.json")
    assert open_index(path, howto.workspace.root / "captions").collect().height == 6
