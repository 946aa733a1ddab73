"""The `.json` of a sample has one set of keys and one type a key, whatever the sample lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.shards.facts import FACTS, facts, facts_problem

TYPES = {fact.name: fact.type for fact in FACTS}
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = {
    **{name: {str: pl.String, int: pl.Int64, float: pl.Float64}[kind] for name, kind in TYPES.items()},
    "frame_times_s": pl.List(pl.Float64),
    "augment": pl.UInt64,
}
UNKNOWN: dict[str, Any] = dict.fromkeys(TYPES)
CLIP: dict[str, Any] = UNKNOWN | {
    "uid": "0" * 32,
    "url": "https://example.org/a.mp4",
    "extra": '{"rank":null,"tags":[]}',
    "frame_times_s": [1.0, 2.5],
    "width": 32,
    "augment": 2**53 - 1,
    "clip_score": 0.12345678,
    "start_s": 0.0,
    "fps": 25.0,
}


def written(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(data) for data in facts(pl.DataFrame(list(rows), schema=SCHEMA))]


def test_a_sample_of_which_nothing_is_known_has_every_key_with_its_type() -> None:
    (content,) = written(UNKNOWN)
    assert content == {fact.name: fact.unknown for fact in FACTS}
    assert {name: type(value) for name, value in content.items()} == TYPES
    assert facts_problem(content) is None


def test_a_whole_number_of_seconds_stays_a_decimal_number() -> None:
    (content,) = written(CLIP)
    assert (content["start_s"], content["fps"], content["clip_score"]) == (0.0, 25.0, 0.123457)
    assert {name: type(value) for name, value in content.items()} == TYPES
    assert json.loads(content["extra"]) == {"rank": None, "tags": []}
    assert json.loads(content["frame_times_s"]) == [1.0, 2.5]
    assert facts_problem(content) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_unknown(value: float) -> None:
    (content,) = written(CLIP | {"clip_score": value, "fps": value})
    assert (content["clip_score"], content["fps"]) == (-2.0, -1.0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"lang": None}, "lang is NoneType, not str"),
        ({"extra": {"rank": 1}}, "extra is dict, not str"),
        ({"extra": "[]"}, "extra is not the text of a JSON dict"),
        ({"extra": "{"}, "extra is not the text of a JSON dict"),
        ({"extra": "[" * 100_000}, "extra is not the text of a JSON dict"),
        ({"frame_times_s": [1.0]}, "frame_times_s is list, not str"),
        ({"frame_times_s": "{}"}, "frame_times_s is not the text of a JSON list"),
        ({"start_s": 1}, "start_s is int, not float"),
        ({"width": 1.0}, "width is float, not int"),
        ({"width": True}, "width is bool, not int"),
        ({"augment": 2**63}, f"augment is {2**63}, which does not fit 64 bits"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"url": "\ud800"}, "url is not valid Unicode"),
        ({"repeats": 2}, "has unknown keys: repeats"),
    ],
    ids=str,
)
def test_a_departure_is_named_with_its_key(change: dict[str, Any], problem: str) -> None:
    (content,) = written(CLIP)
    assert facts_problem(content | change) == problem


def test_a_missing_key_and_another_value_than_an_object_are_problems() -> None:
    (content,) = written(CLIP)
    del content["fps"], content["lang"]
    assert facts_problem(content) == "lacks fps, lang"
    assert facts_problem([content]) == "is not a JSON object"


def test_the_page_on_formats_has_every_fact() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    names = {str: "text", int: "int64", float: "double"}
    rows = [f"| `{f.name}` | {names[f.type]} | `{json.dumps(f.unknown)}` | {f.meaning} |" for f in FACTS]
    assert [row for row in rows if row not in page] == []
