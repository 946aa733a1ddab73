"""Sources of videos, sound and text, by a mapping of columns."""

from __future__ import annotations

import json
from datetime import time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from mmdata.errors import UserError
from mmdata.samples import sample_uid
from mmdata.sources.problems import parse_time
from tests.sources.conftest import Inbox


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


def test_parquet_times_may_be_numbers(inbox: Inbox) -> None:
    inbox.parquet("v.parquet", {"url": ["http://e/v.mp4"] * 2, "text": ["a", "b"], "s": [0.0, 1.0], "e": [1.0, 2.5]})
    inbox.source = {"kind": "video", "columns": {"url": "url", "caption": "text", "start_s": "s", "end_s": "e"}}
    assert [(row["start_s"], row["end_s"]) for row in inbox.rows()] == [(0, 1), (1, 2.5)]


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        (pa.duration("ms"), timedelta(seconds=61.5), timedelta(seconds=90)),
        (pa.time32("ms"), time(0, 1, 1, 500_000), time(0, 1, 30)),
        (pa.decimal128(5, 2), Decimal("61.50"), Decimal(90)),
        (pa.float16(), 61.5, 90.0),
        (pa.string(), "00:01:01.5", "90"),
    ],
)
def test_parquet_times_may_be_of_any_type_that_says_seconds(inbox: Inbox, kind: Any, one: Any, two: Any) -> None:
    times = {"s": pa.array([one, None], kind), "e": pa.array([two, None], kind)}
    inbox.parquet("v.parquet", {"url": ["http://e/v.mp4"] * 2, "text": ["a", "b"], **times})
    inbox.source = {"kind": "video", "columns": {"url": "url", "caption": "text", "start_s": "s", "end_s": "e"}}
    assert [(row["start_s"], row["end_s"]) for row in inbox.rows()] == [(61.5, 90), (None, None)]


def test_times_of_a_type_that_has_no_text_are_refused(inbox: Inbox) -> None:
    lists = {"s": [[0.0]], "e": [[1.0]]}
    inbox.parquet("v.parquet", {"url": ["http://e/v.mp4"], "text": ["a"], **lists})
    inbox.source = {"kind": "video", "columns": {"url": "url", "caption": "text", "start_s": "s", "end_s": "e"}}
    with pytest.raises(UserError, match="column s holds list"):
        inbox.look()


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("1:02", 62), ("1:00:00,250", 3600.25), (" 3 ", 3), ("-4", -4), ("1:-2", None), ("", None),
     ("a:b", None), ("1e308:00:00", None), ("inf", None), ("nan", None), ("1:2:3:4", None), ("1e3", 1000)],
)  # fmt: skip
def test_times_in_many_forms(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds
