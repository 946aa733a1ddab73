"""Parquet files: damaged row groups, and columns of unusual types."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from mmdata.errors import UserError
from mmdata.sources.batches import MAX_BATCH_BYTES
from mmdata.sources.columns import Columns
from mmdata.sources.parquet import read_parquet
from tests.sources.conftest import Inbox


def test_a_corrupt_row_group_costs_its_own_rows_alone(inbox):
    texts = [f"caption {n} " + "lorem ipsum " * 20 for n in range(300)]
    path = inbox.parquet("a.parquet", {"URL": [f"http://e/{n}" for n in range(300)], "TEXT": texts}, row_group_size=100)

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
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "nothing": pa.nulls(2),
        },
    )
    first, second = inbox.rows()
    assert first["caption"] == "x"
    extra = json.loads(first["extra"])
    assert (extra["day"], extra["price"], extra["nothing"]) == ("2020-01-02", "1.50", None)
    assert json.loads(second["extra"])["map"] is None


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


def test_binary_columns_are_left_out_and_counted(inbox: Inbox) -> None:
    pictures = [{"bytes": bytes(1_000), "path": "a.jpg"}] * 4
    inbox.parquet(
        "a.parquet",
        {
            "URL": [f"http://e/{n}" for n in range(4)],
            "TEXT": list("abcd"),
            "image": pictures,
            "jpg": [bytes([n]) * 500 for n in range(4)],
            "many": [[b"x"], None, [], [b"y"]],
            "encoded": pa.array([b"x"] * 4).dictionary_encode(),
            "n": [1, 2, 3, 4],
        },
        row_group_size=3,
    )
    inbox.source = {"slice_rows": 2}
    rows = inbox.rows()
    assert [json.loads(row["extra"]) for row in rows] == [{"n": n} for n in (1, 2, 3, 4)]
    report = inbox.read("web-000000")
    left_out = {row["column"]: row["bytes"] for row in report.tables["binary columns left out of extra"]}
    assert left_out.keys() == {"image", "jpg", "many", "encoded"}
    assert 2_000 < left_out["jpg"] < 5_000  # with the headers of small pages
    inbox.source |= {"keep_columns": ["many"]}
    assert json.loads(inbox.rows()[0]["extra"]) == {"many": "[b'x']"}


def test_a_table_of_pictures_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pictures = [{"bytes": np.random.default_rng(n).bytes(40_000), "path": f"{n}.jpg"} for n in range(1_000)]
    long = ["words " * 5_000] * 1_000
    urls = [f"http://e/{n}" for n in range(1_000)]
    pq.write_table(pa.table({"url": urls, "caption": long, "image": pictures}), path, use_dictionary=False)
    before = pa.total_allocated_bytes()
    sizes, peak = [], 0
    for batch in read_parquet(UPath(path), Columns("url", "caption"), 0, 1_000):
        sizes.append(len(batch))
        peak = max(peak, pa.total_allocated_bytes() - before)
        assert batch.extras == [None] * len(batch)
    assert sum(sizes) == 1_000
    assert max(sizes) * 30_000 < 2 * MAX_BATCH_BYTES  # the captions alone take 30 MB
    assert peak < 100_000_000


@pytest.mark.parametrize("extra", [{"sim": [1]}, {"sim.1": ["c"]}])
def test_a_column_that_is_there_twice_and_not_needed_keeps_both_values(inbox: Inbox, extra: dict[str, Any]) -> None:
    columns = [pa.array(["http://e/1"]), pa.array(["a"]), pa.array([1]), pa.array(["b"]), pa.array([2])]
    table = pa.Table.from_arrays(columns, ["URL", "TEXT", "sim", "sim", "TEXT.b"])
    for name, values in extra.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, inbox.path("a.parquet"))
    (row,) = inbox.rows()
    kept = json.loads(row["extra"])
    assert sorted(map(str, kept.values())) == sorted(map(str, [1, "b", 2, *extra[next(iter(extra))]]))


def test_a_needed_column_that_is_there_twice_makes_that_file_unreadable_alone(inbox: Inbox) -> None:
    columns = [pa.array(["http://e/1"]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.Table.from_arrays(columns, ["URL", "TEXT", "TEXT"]), inbox.path("spark.parquet"))
    inbox.pairs("good.parquet", 2)
    assert inbox.look().reasons == {"file_unreadable": 1}
    errors = [entry["error"] for entry in inbox.workspace.catalog().files.values() if entry["error"]]
    assert "spark.parquet: has more than one column TEXT" in errors[0]
    assert len(inbox.rows()) == 2


def test_nan_and_the_words_for_a_missing_value_are_no_captions(inbox: Inbox) -> None:
    inbox.parquet("a.parquet", {"URL": ["http://e/1"] * 2, "TEXT": [float("nan"), None]})
    inbox.parquet("b.parquet", {"URL": ["http://e/2", "nan", "http://e/3"], "TEXT": ["nan", "words", "nan bread"]})
    assert [row["problem"] for row in inbox.rows()] == ["no_caption", "no_caption", "no_caption", "no_url", None]


def test_digests_stored_as_bytes_are_read_in_hex(inbox: Inbox) -> None:
    digests = {"sha256": pa.array([bytes(32)], pa.binary(32)), "md5": [bytes(16)]}
    inbox.parquet("a.parquet", {"url": ["http://e/1"], "text": ["a"], **digests})
    (row,) = inbox.rows()
    assert (row["expected_sha256"], row["problem"]) == ("00" * 32, None)
    assert json.loads(row["extra"]) == {"expected_md5": "00" * 16}


def test_a_footer_that_names_another_column_than_its_schema_stops_nothing(inbox: Inbox) -> None:
    tags = pa.array([["red"], ["blue"]] * 50, pa.list_(pa.string()))
    path = inbox.parquet("a.parquet", {"URL": [f"http://e/{n}" for n in range(100)], "TEXT": ["a"] * 100, "tags": tags})
    data = path.read_bytes()
    place = data.rindex(b"element")  # in the last column chunk; the schema stands before it
    path.write_bytes(data[:place] + b"elemenX" + data[place + 7 :])
    assert len(inbox.rows()) == 100


def test_a_footer_whose_names_are_no_unicode_is_unreadable(inbox: Inbox) -> None:
    path = inbox.parquet("a.parquet", {"URL": ["http://e/1"], "TEXT": ["a"], "licence": ["b"]})
    inbox.pairs("sound.parquet", 3)
    path.write_bytes(path.read_bytes().replace(b"licence", b"lic\xffnce"))
    assert len(inbox.rows()) == 3
    (entry,) = (entry for entry in inbox.workspace.catalog().files.values() if entry["status"] != "ok")
    assert entry["status"] == "unreadable"
    assert "a.parquet: cannot be read as Parquet (UnicodeDecodeError" in entry["error"]


def test_a_footer_whose_counts_of_rows_differ_is_unreadable(inbox: Inbox) -> None:
    urls = [f"http://e/{n}" for n in range(300)]
    path = inbox.parquet("a.parquet", {"URL": urls, "TEXT": ["a"] * 300}, row_group_size=1_000)
    inbox.pairs("sound.parquet", 3)
    data = path.read_bytes()
    at = data.rindex(b"\x16\xd8\x04")  # Thrift: the i64 300 of the row group, after that of the file
    path.write_bytes(data[:at] + b"\x16\xd0\x04" + data[at + 3 :])
    assert len(inbox.rows()) == 3
    (entry,) = (entry for entry in inbox.workspace.catalog().files.values() if entry["status"] != "ok")
    assert "rows, and its row groups hold" in entry["error"]


_READ = """
import os, sys
from upath import UPath
from mmdata.sources.columns import Columns
from mmdata.sources.parquet import read_parquet
columns = Columns(url="URL", caption="TEXT")
print([problem for batch in read_parquet(UPath(sys.argv[1]), columns, 0, 1) for problem in batch.problems], flush=True)
os._exit(0)  # without waiting for pyarrow's threads, which may be starting at this moment
"""


@pytest.mark.parametrize(("name", "problems"), [("TEXT", "['unreadable']"), ("image", "[None]")])
def test_a_footer_that_contradicts_itself_does_not_end_the_process(inbox: Inbox, name: str, problems: str) -> None:
    path = inbox.parquet("a.parquet", {"URL": ["http://e/1"], "TEXT": ["a"], "image": [b"\xff"]})
    optional = b"%\x02\x18" + bytes([len(name)]) + name.encode()  # Thrift: repetition type, then name
    assert path.read_bytes().count(optional) == 1
    path.write_bytes(path.read_bytes().replace(optional, optional.replace(b"\x02", b"\x00", 1)))
    ended = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, problems), ended.stderr[-1_000:]
