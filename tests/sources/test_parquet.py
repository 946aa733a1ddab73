"""Parquet files: damaged row groups, and columns of unusual types."""

from __future__ import annotations

import json
from datetime import time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from mmdata.errors import UserError
from tests.sources.conftest import Inbox


def test_a_corrupt_row_group_costs_its_own_rows_alone(inbox):
    texts = [f"caption {n} " + "lorem ipsum " * 20 for n in range(300)]
    path = inbox.parquet("a.parquet", {"URL": [f"http://e/{n}" for n in range(300)], "TEXT": texts}, row_group_size=100)
    import pyarrow.parquet as pq

    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset or column.data_page_offset
    data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    inbox.source = {"slice_rows": 60}
    rows = inbox.rows()
    assert sum(row["copies"] for row in rows) == 300
    assert [row["row"] for row in rows if row["problem"] == "unreadable"] == list(range(100, 200))
    assert all(row["problem"] is None for row in rows if not 100 <= row["row"] < 200)


def test_parquet_columns_of_odd_types(inbox):
    import datetime
    import decimal

    inbox.parquet(
        "a.parquet",
        {
            "URL": pa.array(["http://e/1"] * 2, pa.large_string()),
            "TEXT": pa.array(["x", "y"]).dictionary_encode(),
            "day": [datetime.date(2020, 1, 2)] * 2,
            "price": [decimal.Decimal("1.50")] * 2,
            "raw": [b"\x00\xff", None],
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "nothing": pa.nulls(2),
        },
    )
    first, second = inbox.rows()
    assert first["caption"] == "x"
    extra = json.loads(first["extra"])
    assert (extra["day"], extra["price"], extra["nothing"]) == ("2020-01-02", "1.50", None)
    assert json.loads(second["extra"])["raw"] is None


def test_a_caption_column_of_lists_is_no_caption_column(inbox):
    inbox.parquet("a.parquet", {"URL": ["http://e/1"], "TEXT": [["x"]]})
    inbox.pairs("b.parquet", 2)
    assert inbox.look().reasons == {"file_unreadable": 1}


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
