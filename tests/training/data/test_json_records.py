"""Records of JSON lists and JSONL files: each with its place, and broken files by their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import DataError
from training.data.json_records import json_records

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.none() | st.integers() | TEXT | st.lists(TEXT, max_size=2) | st.dictionaries(TEXT, TEXT, max_size=2)
RECORDS = st.lists(st.dictionaries(TEXT, VALUE, max_size=2), min_size=1, max_size=4)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "records.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def parsed(path: Path) -> list[Any]:
    whole = path.read_bytes()
    out = []
    for record in json_records(path):
        assert record.line == whole[: record.offset].count(b"\n") + 1
        assert json.loads(whole[record.offset : record.offset + record.length]) == record.value
        out.append(record.value)
    return out


@settings(max_examples=50, deadline=None)
@given(records=RECORDS, indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans(), mark=st.sampled_from(["", "﻿"]))
def test_a_list_and_lines_hold_the_same_records(
    records: list[Any], indent: int | None, ascii_only: bool, mark: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.getbasetemp()
    text = mark + json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    assert parsed(written(place, f"{text}\n")) == records
    lines = "\n\n".join(json.dumps(record, ensure_ascii=ascii_only) for record in records)
    assert parsed(written(place, mark + lines)) == records


def test_lines_that_are_not_json_are_records_with_a_problem(tmp_path: Path) -> None:
    path = written(tmp_path, '{"a": 1}\nnot json\n\n{"b": [}\n')
    records = list(json_records(path))
    assert [(record.line, record.offset) for record in records] == [(1, 0), (2, 9), (4, 19)]
    assert [record.value for record in records] == [{"a": 1}, None, None]
    assert [str(record.problem).startswith("not JSON: ") for record in records] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a": 1},\n{"b": 2}', "line 2: not a JSON list (it breaks off)"),
        ('[{"a": 1}\n{"b": 2}]', "line 2: not a JSON list (no comma between two records)"),
        ('[{"a": 1},\n\n"b"]', "line 3: not a JSON list (an element that is no object)"),
        ('[{"a": 1},\n7]', "line 2: not a JSON list (a trailing comma or value)"),
        ('[{"a": 1}]\n[{"b": 2}]', "line 1: not a JSON list (something after its end)"),
        ('[{"a": 1},\n{"a": "x},\n{"b": 2}]', "line 2: not a JSON list (the record that begins here does not end)"),
        ("[7]", "line 1: not a JSON list (a trailing comma or value)"),
        (" \n", "holds no records"),
        ("", "holds no records"),
    ],
)
def test_what_is_neither_is_refused_by_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        list(json_records(path))
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


def test_an_empty_list_holds_nothing(tmp_path: Path) -> None:
    assert list(json_records(written(tmp_path, "[]"))) == []
