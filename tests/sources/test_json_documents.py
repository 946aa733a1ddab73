"""JSON files that are one document, in the forms that data sets have, and what is said about others."""

from __future__ import annotations

import io
import json

import pytest

from mmdata.errors import DataError
from mmdata.sources import json_documents
from mmdata.sources.json_documents import document_records, is_document

ROWS = [{"url": f"http://e/{n}", "caption": f"é {n}", "score": 0.5, "note": None} for n in range(5)]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def read(text: str) -> list[dict | None]:
    return list(document_records(io.BytesIO(text.encode()), "a.json"))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff [\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
        json.dumps({"info": {"version": [1]}, "annotations": ROWS, "more": 7}),
        json.dumps(COLUMNS),
        json.dumps({name: {str(n): value for n, value in enumerate(values)} for name, values in COLUMNS.items()}),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 16])
def test_each_form_gives_the_same_rows(text: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_documents, "CHUNK_BYTES", chunk_bytes)
    assert read(text) == ROWS


def test_elements_that_are_no_objects_are_malformed_rows_and_nan_is_null() -> None:
    assert read('[1, {"a": NaN}, "x", null, [2]]') == [None, {"a": None}, None, None, None]


@pytest.mark.parametrize("depth", [101, 500, *range(960, 1_000), 20_000])
@pytest.mark.parametrize("chunk_bytes", [9, 1 << 16])
def test_an_object_that_is_nested_too_deeply_is_malformed_alone(
    depth: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_documents, "CHUNK_BYTES", chunk_bytes)
    nested = '{"a": "]", "x": ' + "[" * depth + "]" * depth + "}"
    assert read(f'[{{"a": 1}}, {nested}, {{"a": 2}}]') == [{"a": 1}, None, {"a": 2}]
    assert read(f'{{"a":\n1}}\n{nested}\n{{"a": 2}}') == [{"a": 1}, None, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a"', "delimiter"),
        ('[{"a": 1} {"a": 2}]', ", is expected"),
        ('{"a": 1', ", is expected"),
        ("7", "an object or an array is expected"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": [1, 2], "b": [3, ' + "[" * 200 + "]" * 200 + "]}", "one of its columns is nested too deeply"),
        ('{"images": [{"id": 1}], "annotations": [{"id": 1}]}', "several arrays of objects"),
    ],
)
def test_other_documents_are_refused_with_place_and_remedy(text: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json: cannot be read as JSON \(character.*{said}.*Remedy"):
        read(text)


@pytest.mark.parametrize(
    ("lines", "named_lines", "document"),
    [
        (['{"a": 1}', '{"a": 2}'], False, False),
        (['{"a": [1]}', ""], False, True),
        (["[{", ""], True, True),
        (['[{"a": 1},', '{"a": 2}]'], False, True),
        (["[1, 2]", '{"a": 2}'], True, False),
        (['{"a": 1', '{"a": 2}'], False, False),  # a damaged first line
        (['{"a": 1', "x"], True, False),
        (["{", ' "a": 1'], True, True),
        (["words", ""], False, False),
    ],
)
def test_the_first_two_lines_say_whether_a_file_is_a_document(
    lines: list[str], named_lines: bool, document: bool
) -> None:
    assert is_document(*lines, named_lines=named_lines) == document
