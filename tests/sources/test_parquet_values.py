"""Arrow columns of any type become text and JSON, and none of them raises."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from mmdata.config import Source
from mmdata.sources.parquet_values import extras_of, hex_texts_of, is_binary, texts_of
from mmdata.sources.source_files import look_into, read_batches

NESTED = [{"a": [1, None], "b": {"c": "x"}}, None, {"a": [], "b": None}]
COLUMNS: dict[str, pa.Array] = {
    "null": pa.nulls(3),
    "bool": pa.array([True, None, False]),
    "int8": pa.array([1, None, -1], pa.int8()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "half": pa.array([0.5, None, float("nan")], pa.float16()),
    "double": pa.array([0.5, float("inf"), float("nan")]),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-2.00")]),
    "decimal256": pa.array([Decimal(10) ** 60, None, Decimal(1)], pa.decimal256(70, 2)),
    "date": pa.array([date(2020, 1, 2), None, date(1, 1, 1)]),
    "far date": pa.array([2**30, None, -(2**30)], pa.int32()).cast(pa.date32()),
    "time": pa.array([time(1, 2, 3), None, time(0)]),
    "timestamp": pa.array([datetime(2020, 1, 1, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
    "odd zone": pa.array([0, None, 1], pa.timestamp("s", "Mars/Olympus")),
    "far time": pa.array([2**62, None, -(2**62)], pa.timestamp("us")),
    "duration": pa.array([timedelta(seconds=1.5), None, timedelta(0)]),
    "large": pa.array(["x", None, ""], pa.large_string()),
    "view": pa.array(["x", None, "y" * 100], pa.string_view()),
    "large list": pa.array([["x"], None, []], pa.large_list(pa.string())),
    "fixed list": pa.array([[0.1, 0.2], None, [0.3, float("nan")]], pa.list_(pa.float32(), 2)),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "struct": pa.array(NESTED),
    "empty struct": pa.array([{}, {}, None], pa.struct([])),
    "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
    "number dictionary": pa.array([1.5, None, 1.5]).dictionary_encode(),
    "date dictionary": pa.array([date(2020, 1, 2), None, None]).dictionary_encode(),
    "list of dictionary": pa.ListArray.from_arrays([0, 1, 1, 2], pa.array(["a", "b"]).dictionary_encode()),
    "list of dates": pa.array([[date(2020, 1, 2)], None, []]),
    "uuid": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
    "json": pa.array(['{"a": 1}', None, "2"], pa.json_()),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    ),
    "binary": pa.array([b"\xff", None, b"a"]),
    "interval": pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval()),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_type_becomes_text_and_json(name: str) -> None:
    column = COLUMNS[name]
    if not pa.types.is_nested(column.type) and name != "tensor":
        texts, _ = texts_of(column)
        assert [type(text) for text in texts] == [type(text) for text in texts if text is None or isinstance(text, str)]
        assert len(texts) == 3
    for row in extras_of(pa.record_batch({"x": column}), {"x": "x"}, {}):
        assert json.loads(str(row)).keys() == {"x"}


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in ("empty struct", "interval")])
def test_a_parquet_file_with_any_column_keeps_its_rows(name: str, tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.parquet")
    table = pa.table({"url": [f"http://e/{n}" for n in range(3)], "caption": list("abc"), "x": COLUMNS[name]})
    pq.write_table(table, path)
    for columns in ({"url": "url", "caption": "caption"}, {"url": "url", "caption": "x"}, {"url": "x", "caption": "x"}):
        source = Source(name="web", kind="pairs", files=str(path), columns=columns)
        contents = look_into(source, path, path.stat().st_size)
        if contents.status == "ok":
            (batch,) = read_batches(source, path, 0, 3)
            assert len(batch) == 3
            assert (name in ("binary", "uuid")) == ("x" in batch.left_out) or "x" in columns.values()
        else:
            assert "x" in columns.values()
            assert "column x holds" in str(contents.error)


@pytest.mark.parametrize(
    ("kind", "binary"),
    [
        (pa.binary(), True),
        (pa.binary_view(), True),
        (pa.list_(pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])), True),
        (pa.map_(pa.string(), pa.binary(4)), True),
        (pa.dictionary(pa.int32(), pa.binary()), True),
        (pa.uuid(), True),
        (pa.list_(pa.string()), False),
        (pa.json_(), False),
    ],
)
def test_a_type_is_binary_if_bytes_are_anywhere_in_it(kind: pa.DataType, binary: bool) -> None:
    assert is_binary(kind) == binary


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([b"\x00\xff", None]), ["00ff", None]),
        (pa.array([b"00ff", None]), ["00ff", None]),  # hex digits, written as bytes
        (pa.array(["00FF", None]), ["00FF", None]),
    ],
)
def test_digests_are_hex_whether_stored_as_bytes_or_as_text(column: pa.Array, texts: list[Any]) -> None:
    assert hex_texts_of(column, 2) == texts


def test_text_that_is_no_utf8_is_named_by_its_index() -> None:
    assert texts_of(pa.array([b"a", b"\xff", None])) == (["a", "\ufffd", None], [1])
