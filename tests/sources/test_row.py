"""Source rows become rows of the table, the same from every file format and for every kind of source."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.samples import sample_uid
from tests.sources.conftest import Inbox

ODD = [
    ("http://Example.com:80/a.jpg#top", "  a\x00 b\n\tc "),
    ("http://example.com/a.jpg", "a b c"),
    ("", "no url"),
    (None, "no url either"),
    ("file:///etc/passwd", "a file"),
    ("data:image/png;base64,AAAA", "data"),
    ("example.com/a.jpg", "no scheme"),
    ("http:///a.jpg", "no host"),
    ("http://example.com/" + "x" * 9000, "long url"),
    ("http://example.com/b.jpg", ""),
    ("http://example.com/c.jpg", None),
    ("http://example.com/d.jpg", " \x00\n "),
    ("http://example.com/e.jpg", "x" * 10_001),
    ("http://example.com/f.jpg", "fine — and well 猫"),
]


PROBLEMS = [
    *(None, None, "no_url", "no_url", "not_http", "not_http", "not_http", "bad_url", "url_too_long"),
    *("no_caption", "no_caption", "no_caption", "caption_too_long", None),
]


def as_csv(rows: list[tuple], header: str = "URL,TEXT") -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header.split(","), *rows])
    return out.getvalue()


def as_jsonl(rows: list[tuple]) -> str:
    return "".join(json.dumps({"URL": url, "TEXT": text}) + "\n" for url, text in rows)


def write(inbox, name: str, rows: list[tuple]) -> None:
    if name.endswith(".parquet"):
        inbox.parquet(name, {"URL": [row[0] for row in rows], "TEXT": [row[1] for row in rows]}, row_group_size=4)
    else:
        inbox.text(name, as_csv(rows) if name.endswith(".csv") else as_jsonl(rows))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_bad_rows_are_kept_with_their_reason_in_every_format(inbox, name):
    write(inbox, name, ODD)
    rows = inbox.rows()
    assert sum(row["copies"] for row in rows) == len(ODD)
    by_number = {row["row"]: row for row in rows}
    assert by_number[0]["copies"] == 2  # row 1 says the same once both are written in one way
    assert [by_number[n]["problem"] for n in range(len(ODD)) if n != 1] == [PROBLEMS[0], *PROBLEMS[2:]]
    assert by_number[0]["url"] == "http://example.com/a.jpg"
    assert by_number[0]["caption"] == "a b c"
    assert by_number[0]["uid"] == sample_uid("http://example.com/a.jpg", "a b c")
    assert len({row["uid"] for row in rows}) == len(rows)
    assert by_number[4]["url"] == "file:///etc/passwd"


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_the_format_does_not_change_a_row(inbox, name):
    write(inbox, name, ODD)
    rows = [(row["row"], row["url"], row["caption"], row["problem"]) for row in inbox.rows()]
    write(inbox, "reference.parquet", ODD)
    inbox.path(name).unlink()
    assert rows == [(row["row"], row["url"], row["caption"], row["problem"]) for row in inbox.rows()]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part_rows=st.integers(1, 20), slice_rows=st.integers(1, 20))
def test_any_cut_into_parts_and_slices_gives_the_same_uids(inbox, name, part_rows, slice_rows):
    write(inbox, name, ODD)
    inbox.source = {}
    whole = sorted((row["uid"], row["copies"]) for row in inbox.rows())
    inbox.source = {"part_rows": part_rows, "slice_rows": slice_rows}
    rows = inbox.rows()
    summed: dict[str, int] = {}
    for row in rows:
        summed[row["uid"]] = summed.get(row["uid"], 0) + row["copies"]
    assert sorted(summed.items()) == whole


def test_rows_that_cannot_be_used_keep_their_uid_wherever_the_corpus_lies(inbox, tmp_path):
    write(inbox, "a.parquet", ODD)
    here = [row["uid"] for row in inbox.rows()]
    inbox.folder = tmp_path / "elsewhere"
    inbox.folder.mkdir()
    write(inbox, "a.parquet", ODD)
    assert [row["uid"] for row in inbox.rows()] == here


def test_clips_of_longer_videos_have_their_times(inbox: Inbox) -> None:
    spans: list[tuple[Any, Any]] = [
        (0, 4.5), ("00:01:02.250", "1:05"), (None, None), (3, 3), (5, 4), (-1, 2), ("nan", 2), ("soon", 2), (1, None),
    ]  # fmt: skip
    lines = [{"u": "http://e/v.mp4", "t": f"clip {n}", "a": a, "b": b, "fps": 25} for n, (a, b) in enumerate(spans)]
    inbox.text("v.jsonl", "\n".join(json.dumps(line) for line in lines))
    inbox.source = {"kind": "video", "columns": {"url": "u", "caption": "t", "start_s": "a", "end_s": "b"}}
    rows = inbox.rows()
    assert [(row["start_s"], row["end_s"], row["problem"]) for row in rows] == [
        (0, 4.5, None), (62.25, 65, None), (None, None, None), *[(None, None, "bad_times")] * 6,
    ]  # fmt: skip
    assert {row["kind"] for row in rows} == {"video"}
    assert rows[1]["uid"] == sample_uid("http://e/v.mp4", "clip 1", 62.25, 65.0)
    assert json.loads(rows[0]["extra"]) == {"fps": 25}


def test_sound_may_lack_its_words(inbox: Inbox) -> None:
    inbox.parquet("a.parquet", {"url": ["http://e/1.flac", "http://e/2.flac", None], "said": ["hello", None, "words"]})
    inbox.source = {"kind": "audio", "columns": {"url": "url", "caption": "said"}}
    rows = inbox.rows()
    assert [(row["kind"], row["caption"], row["problem"]) for row in rows] == [
        ("audio", "hello", None),
        ("audio", None, None),
        ("audio", "words", "no_url"),
    ]
    assert rows[1]["uid"] == sample_uid("http://e/2.flac", None)


def test_text_needs_no_url_and_may_be_long(inbox: Inbox) -> None:
    long = "word " * 20_000
    lines = [{"text": "short", "question": "q?"}, {"text": long}, {"text": " "}, {"text": "short"}, {"other": 1}]
    inbox.text("t.jsonl", "\n".join(json.dumps(line) for line in lines))
    inbox.source = {"kind": "text", "columns": {"caption": "text"}}
    rows = inbox.rows()
    assert [(row["url"], row["problem"], row["copies"]) for row in rows] == [
        (None, None, 2),
        (None, None, 1),
        (None, "no_caption", 1),
        (None, "no_caption", 1),
    ]
    assert rows[1]["caption"] == long.strip()
    assert rows[0]["uid"] == sample_uid(None, "short")


@pytest.mark.parametrize("depth", [101, 500, *range(900, 1_000, 9), 993, 20_000])
def test_a_row_that_is_nested_too_deeply_is_malformed_alone(inbox: Inbox, depth: int) -> None:
    nested = '{"URL": "http://example.com/a.jpg", "TEXT": "nested", "x": ' + "[" * depth + "]" * depth + "}\n"
    inbox.text("a.jsonl", '{"URL": "http://example.com/b.jpg", "TEXT": "flat"}\n' + nested)
    assert [row["problem"] for row in inbox.rows()] == [None, "malformed_row"]


def test_a_time_of_minus_zero_is_zero_and_an_endless_one_is_bad(inbox: Inbox) -> None:
    inbox.source = {"kind": "audio", "columns": {"url": "u", "start_s": "s", "end_s": "e"}}
    spans = [("0", "1"), ("-0.0", "1"), ("-0:00:01", "2"), ("0", "1e300"), ("0", "1e300")]
    urls = [*["http://example.com/a.mp3"] * 4, ""]
    lines = (f"{url},{start},{end}\n" for url, (start, end) in zip(urls, spans, strict=True))
    inbox.text("a.csv", "u,s,e\n" + "".join(lines))
    rows = inbox.rows()
    expected = [(None, 2), ("bad_times", 1), ("bad_times", 1), ("no_url", 1)]
    assert [(row["problem"], row["copies"]) for row in rows] == expected
    assert [row["end_s"] for row in rows] == [1, None, None, None], "a time that no integer holds stops the selection"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_missing_values_are_missing_in_every_format(inbox, name):
    pairs = [("http://e/1", "nan"), ("http://e/2", "\u200b\u200b"), ("NaN", "words"), ("http://e/3", "NULL")]
    write(inbox, name, pairs)
    assert [row["problem"] for row in inbox.rows()] == ["no_caption", "no_caption", "no_url", "no_caption"]


def test_missing_times_are_those_of_a_whole_file(inbox: Inbox) -> None:
    nan = float("nan")
    inbox.parquet("v.parquet", {"url": ["http://e/v.mp4"] * 2, "text": ["a", "b"], "s": [nan, 1.0], "e": [nan, 2.5]})
    inbox.source = {"kind": "video", "columns": {"url": "url", "caption": "text", "start_s": "s", "end_s": "e"}}
    assert [(row["start_s"], row["end_s"], row["problem"]) for row in inbox.rows()] == [
        (None, None, None),
        (1, 2.5, None),
    ]


def test_an_expected_md5_is_kept_in_extra(inbox: Inbox) -> None:
    md5 = "AB" * 16
    inbox.text("a.csv", f"URL,TEXT,md5,n\nhttp://e/1,a,{md5},1\nhttp://e/2,b,,2\nhttp://e/3,c,xyz,3\n")
    first, second, third = inbox.rows()
    assert json.loads(first["extra"]) == {"n": "1", "expected_md5": md5.lower()}
    assert json.loads(second["extra"]) == {"n": "2"}
    assert third["problem"] == "bad_md5"
