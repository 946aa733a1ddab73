"""CSV, TSV and JSON Lines: quotes, damaged lines, invalid UTF-8 and compression."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest
from upath import UPath

from mmdata.sources.columns import Columns
from mmdata.sources.text_files import read_text


def test_csv_with_quoted_newlines_blank_lines_and_short_rows(inbox):
    inbox.source = {"part_rows": 2, "slice_rows": 2}
    inbox.text(
        "a.csv",
        '\ufeffURL,TEXT,WIDTH\n"http://e/1","two\nlines, one ""caption""",3\n\nhttp://e/2,short\n'
        'http://e/3,three,4,5\n"http://e/4",four,6\n\n\nhttp://e/5,"five\n\nfive",7\n',
    )
    rows = inbox.rows()
    assert [(row["row"], row["caption"], row["problem"]) for row in rows] == [
        (0, 'two lines, one "caption"', None),
        (1, None, "malformed_row"),
        (2, None, "malformed_row"),
        (3, "four", None),
        (4, "five five", None),
    ]
    assert inbox.live() == ["web-000000", "web-000001", "web-000002"]


def test_csv_with_a_quote_that_is_never_closed_ends(inbox):
    inbox.text("a.csv", 'URL,TEXT\nhttp://e/1,one\nhttp://e/2,"' + "never closed\n" * 30_000)
    report = inbox.look()
    rows = inbox.rows()
    assert len(rows) == report.counts["rows"]
    assert rows[0]["problem"] is None
    assert rows[1]["problem"] == "malformed_row"


def test_jsonl_with_broken_lines_other_values_and_a_nan(inbox):
    lines = [
        '{"URL": "http://e/1", "TEXT": "one", "similarity": NaN, "big": 1e999}',
        '{"URL": "http://e/2", "TEXT": "two"',
        "[1, 2]",
        "",
        '{"URL": 7, "TEXT": 8}',
        '{"URL": "http://e/4", "TEXT": {"en": "four"}}',
        '{"URL": "http://e/5", "TEXT": "\\ud800 half"}',
        "[" * 100_000,
        '{"TEXT": "no url"}',
    ]
    inbox.text("a.jsonl", "\n".join(lines))
    rows = inbox.rows()
    assert [row["problem"] for row in rows] == [
        *(None, "malformed_row", "malformed_row", "not_http", "malformed_row", "bad_encoding", "malformed_row"),
        "no_url",
    ]
    assert json.loads(rows[0]["extra"]) == {"similarity": None, "big": None}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_text_that_is_no_utf8_is_a_reason(inbox, name):
    latin = "http://e/1", "caf\u00e9".encode("latin-1")
    if name == "a.csv":
        inbox.text(name, b"URL,TEXT\nhttp://e/1," + latin[1] + b"\nhttp://e/2,two\n")
    elif name == "a.jsonl":
        inbox.text(name, b'{"URL": "http://e/1", "TEXT": "' + latin[1] + b'"}\n{"URL": "http://e/2", "TEXT": "two"}\n')
    else:
        broken = pa.array([latin[1], b"two"], pa.binary())
        text = pa.StringArray.from_buffers(2, broken.buffers()[1], broken.buffers()[2])
        inbox.parquet(name, {"URL": ["http://e/1", "http://e/2"], "TEXT": text, "note": text})
    first, second = inbox.rows()
    assert (first["problem"], second["problem"]) == ("bad_encoding", None)
    assert second["caption"] == "two"


def test_compressed_and_tab_separated_text(inbox):
    inbox.source = {"part_rows": 3, "slice_rows": 2}
    inbox.text("a.csv.gz", gzip.compress(b"URL,TEXT\n" + b"".join(b"http://e/%d,t\n" % n for n in range(8))))
    inbox.text("b.tsv", "URL\tTEXT\nhttp://f/1\ta, b\n")
    rows = inbox.rows()
    assert [row["url"] for row in rows] == [*(f"http://e/{n}" for n in range(8)), "http://f/1"]
    assert rows[-1]["caption"] == "a, b"


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.tsv.gz"])
@pytest.mark.parametrize("part_rows", [2, 100])
def test_a_file_without_a_header_line_is_read_by_the_key_header(inbox, name, part_rows):
    inbox.source = {"header": ["caption", "url"], "part_rows": part_rows, "slice_rows": 2}
    inbox.source |= {"kind": "pairs", "columns": {"url": "url", "caption": "caption"}}
    delimiter = "," if ".csv" in name else "\t"
    text = "".join(f"caption {n}{delimiter}http://e/{n}\n" for n in range(5)).encode()
    inbox.text(name, gzip.compress(text) if name.endswith("gz") else text)
    assert [(row["caption"], row["url"]) for row in inbox.rows()] == [
        (f"caption {n}", f"http://e/{n}") for n in range(5)
    ]


def test_no_row_of_a_tsv_is_lost_by_a_quote_in_whatever_parts(inbox):
    captions = ["a cat", '"Big" house', '"The old man', "dog", 'in the "sky', 'He said "hi', '"whole"', "last"]
    inbox.source = {"part_rows": 3, "slice_rows": 2}
    lines = [f"http://e/{n}\t{caption}\n" for n, caption in enumerate(captions)]
    inbox.text("a.tsv", "URL\tTEXT\n" + "".join(lines))
    rows = inbox.rows()
    assert [(row["url"], row["caption"]) for row in rows] == [(f"http://e/{n}", c) for n, c in enumerate(captions)]
    assert {row["problem"] for row in rows} == {None}


def test_lines_that_a_quote_had_swallowed_are_rows_in_every_part(inbox):
    lines = [f"http://e/{n},{chr(34) if n % 4 == 1 else ''}caption {n}" for n in range(12)]
    inbox.text("a.csv", "URL,TEXT\n" + "\n".join(lines) + "\n")
    for part_rows in (100, 5, 1):
        inbox.source = {"part_rows": part_rows, "slice_rows": part_rows}
        rows = sorted(inbox.rows(), key=lambda row: row["row"])
        assert [row["problem"] for row in rows] == ["malformed_row" if n % 4 == 1 else None for n in range(12)]
        assert all(row["url"] == f"http://e/{row['row']}" for row in rows if row["problem"] is None)


def test_a_column_that_is_there_twice_and_not_needed_keeps_both_values(inbox):
    inbox.text("a.csv", "URL,TEXT,note,note,note.1\nhttp://e/1,one,a,b,c\n")
    inbox.text("b.tsv", "URL\tTEXT\tTEXT\nhttp://e/2\ttwo\t2\n")
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"note": "a", "note.2": "b", "note.1": "c"}
    (error,) = [entry["error"] for entry in inbox.workspace.catalog().files.values() if entry["status"] == "unreadable"]
    assert "b.tsv: has more than one column TEXT" in error
    assert "Remedy" in error


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
def test_a_json_array_is_read_in_parts(inbox, name):
    inbox.source = {"part_rows": 2, "slice_rows": 2}
    objects = [{"URL": f"http://e/{n}", "TEXT": f"caption {n}", "n": n} for n in range(5)]
    text = json.dumps([*objects, 7], indent=1).encode()
    inbox.text(name, gzip.compress(text) if name.endswith("gz") else text)
    rows = inbox.rows()
    assert [(row["url"], row["problem"]) for row in rows[:5]] == [(f"http://e/{n}", None) for n in range(5)]
    assert (json.loads(rows[4]["extra"]), rows[5]["problem"]) == ({"n": 4}, "malformed_row")


def test_batches_of_long_lines_are_bounded_by_bytes(inbox, monkeypatch):
    monkeypatch.setattr("mmdata.sources.text_files.MAX_BATCH_BYTES", 1_000)
    path = UPath(inbox.text("a.csv", "URL,TEXT\n" + "".join(f"http://e/{n},{'x' * 300}\n" for n in range(20))))
    batches = list(read_text(path, Columns("URL", "TEXT"), 0, 20))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4]
    assert [batch.first for batch in batches] == [0, 4, 8, 12, 16]
