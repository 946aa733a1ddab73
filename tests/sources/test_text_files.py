"""CSV, TSV and JSON Lines: quotes, damaged lines, invalid UTF-8 and compression."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest


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
