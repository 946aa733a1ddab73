"""The rows stage: every source row is accounted for, whatever is wrong with it, and however the file is cut."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.config import Source
from mmdata.engine.freshness import plan_parts
from mmdata.errors import DataError, UserError
from mmdata.samples import ROWS, sample_uid
from mmdata.sources.batches import Batch
from mmdata.sources.row import read_rows
from mmdata.sources.rows_table import rows_table
from mmdata.sources.stage import slice_spans
from mmdata.storage.tables import read_table
from mmdata.urls import canonical_url
from mmdata.workspace.layout import Part

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
    told = [(row["row"], row["url"], row["caption"], row["problem"]) for row in inbox.rows()]
    write(inbox, "reference.parquet", ODD)
    inbox.path(name).unlink()
    assert told == [(row["row"], row["url"], row["caption"], row["problem"]) for row in inbox.rows()]


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


text_or_none = st.none() | st.text(max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(text_or_none, text_or_none), max_size=40), st.integers(1, 40))
def test_every_row_is_accounted_for_and_every_uid_stands_once(pairs, cut):
    part = Part("web-000000", "web", "in/a.parquet", 0, len(pairs), "d")
    nulls: list[str | None] = [None] * len(pairs)
    urls, captions = [url for url, _ in pairs], [caption for _, caption in pairs]
    whole = Batch(0, urls, captions, nulls, nulls, nulls, nulls, nulls, nulls)
    source = Source(name="web", kind="laion", files="in/*.parquet")
    table = rows_table(read_rows([whole], source, "a.parquet"), part).table
    pieces = whole.split(cut) if cut < len(pairs) else (whole,)
    assert rows_table(read_rows(pieces, source, "a.parquet"), part).table.equals(table)
    assert table.schema.equals(ROWS)
    assert sum(table["copies"].to_pylist()) == len(pairs)
    uids = table["uid"].to_pylist()
    assert uids == sorted(set(uids))
    for row in table.to_pylist():
        if row["problem"] is None:
            assert row["uid"] == sample_uid(canonical_url(row["url"]), row["caption"])


def test_a_slice_holds_each_uid_once_and_is_sorted(inbox):
    inbox.source = {"slice_rows": 100}
    inbox.parquet("a.parquet", {"URL": ["http://e/1", "http://e/2"] * 40, "TEXT": ["x", "y"] * 40})
    report = inbox.look()
    report = inbox.read("web-000000")
    table = read_table(inbox.workspace.table("web-000000", "rows", "0000"))
    assert table.schema.equals(ROWS)
    assert table["copies"].to_pylist() == [40, 40]
    assert table["uid"].to_pylist() == sorted(table["uid"].to_pylist())
    assert report.counts == {"rows": 80, "samples": 80, "uids": 2, "usable": 2, "repeated": 78, "bad": 0}


def test_a_killed_run_goes_on_where_it_stopped(inbox):
    inbox.source = {"slice_rows": 10}
    inbox.pairs("a.parquet", 95)
    whole = inbox.rows()
    folder = inbox.folder / "workspace/parts/web-000000"
    (folder / "rows.json").unlink()  # killed before the part's stamp
    (folder / "rows/0003.json").unlink()  # and, at another time, between a slice's table and its stamp
    (folder / "rows/0007.json").unlink()
    (folder / "rows/0008.parquet").unlink()
    kept = (folder / "rows/0004.parquet").stat().st_mtime_ns
    report = inbox.read("web-000000")
    assert (report.slices_done, report.slices_reused) == (3, 7)
    assert (folder / "rows/0004.parquet").stat().st_mtime_ns == kept
    assert inbox.rows(["web-000000"]) == whole


def test_a_fresh_part_is_not_read_again(inbox):
    path = inbox.pairs("a.parquet", 30)
    inbox.rows()
    path.unlink()  # so that any look at it would fail
    report = inbox.read("web-000000")
    assert (report.slices_done, report.slices_reused) == (0, 1)
    assert report.counts["rows"] == 30


def test_appended_rows_leave_the_digests_of_the_slices_before(inbox):
    inbox.source = {"slice_rows": 10}
    inbox.pairs("a.parquet", 20)
    inbox.rows()
    before = inbox.workspace.slice_stamp("web-000000", "rows", "0000")
    inbox.pairs("a.parquet", 30)
    inbox.rows()
    after = inbox.workspace.slice_stamp("web-000000", "rows", "0000")
    assert before is not None
    assert after is not None
    assert before.fingerprint != after.fingerprint
    assert before.digest == after.digest  # so nothing is fetched again
    assert all(plan.stale == ("media", "features") for plan in plan_parts(inbox.corpus, inbox.workspace))


def test_a_file_that_changed_since_it_was_catalogued_is_not_read(inbox):
    inbox.pairs("a.parquet", 5)
    inbox.look()
    inbox.pairs("a.parquet", 6)
    with pytest.raises(DataError, match=r"a\.parquet: has changed since.*source_catalog"):
        inbox.read("web-000000")
    (inbox.folder / "inbox/a.parquet").unlink()
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        inbox.read("web-000000")


def test_an_unknown_part_is_a_user_error(inbox):
    inbox.pairs("a.parquet", 5)
    inbox.look()
    with pytest.raises(UserError, match="no part 'web-000009'"):
        inbox.read("web-000009")


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


def test_laion_columns_go_where_they_belong(inbox):
    inbox.parquet(
        "a.parquet",
        {
            "URL": ["http://e/1", "http://e/2"],
            "TEXT": ["eins", "zwei"],
            "WIDTH": pa.array([640, None], pa.int32()),
            "similarity": [0.31, float("nan")],
            "punsafe": pa.array([0.1, None], pa.float32()),
            "hash": [2**62, -5],
            "LANGUAGE": ["de", None],
        },
    )
    first, second = inbox.rows()
    assert (first["lang"], second["lang"]) == ("de", None)
    assert json.loads(first["extra"]) == {"WIDTH": 640, "similarity": 0.31, "punsafe": 0.1, "hash": 2**62}
    assert json.loads(second["extra"]) == {"WIDTH": None, "similarity": None, "punsafe": None, "hash": -5}


def test_laion_400m_keeps_its_sample_id_licence_and_nsfw(inbox):
    inbox.parquet(
        "a.parquet",
        {"SAMPLE_ID": [7.0], "URL": ["http://e/1"], "TEXT": ["x"], "LICENSE": ["?"], "NSFW": ["UNLIKELY"]},
    )
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"SAMPLE_ID": 7.0, "LICENSE": "?", "NSFW": "UNLIKELY"}
    assert row["lang"] is None


def test_datacomp_columns_give_the_expected_hash(inbox):
    good, bad = "AB" * 32, "not a hash"
    inbox.parquet(
        "a.parquet",
        {
            "uid": ["u1", "u2", "u3"],
            "url": ["http://e/1", "http://e/2", "http://e/3"],
            "text": ["x", "y", "z"],
            "original_width": [10, 20, 30],
            "clip_l14_similarity_score": [0.2, 0.3, float("inf")],
            "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]], [], None],
            "sha256": [good, bad, None],
        },
    )
    first, second, third = inbox.rows()
    assert first["expected_sha256"] == good.lower()
    assert second["problem"] == "bad_sha256"
    assert third["expected_sha256"] is None
    assert third["problem"] is None
    extra = json.loads(first["extra"])
    assert extra["uid"] == "u1"
    assert extra["face_bboxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert json.loads(third["extra"])["clip_l14_similarity_score"] is None


def test_a_mapping_reads_any_columns(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "src", "caption": "alt", "lang": "l"}}
    inbox.text("a.csv", "id,src,alt,l\n1,http://e/1,eins,de\n")
    inbox.text("b.jsonl", '{"src": "http://e/2", "alt": "two", "l": "en", "more": {"a": [1, NaN]}}\n')
    one, two = inbox.rows()
    assert (one["caption"], one["lang"], json.loads(one["extra"])) == ("eins", "de", {"id": "1"})
    assert (two["caption"], two["lang"], json.loads(two["extra"])) == ("two", "en", {"more": {"a": [1, None]}})


def test_a_mapping_to_absent_columns_lists_those_found(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "src", "caption": "alt"}}
    inbox.text("a.csv", "id,link,alt\n1,http://e/1,eins\n")
    with pytest.raises(UserError, match="no column src among its columns: id, link, alt"):
        inbox.look()


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


def test_rows_that_cannot_be_used_keep_their_uid_wherever_the_corpus_lies(inbox, tmp_path):
    write(inbox, "a.parquet", ODD)
    here = [row["uid"] for row in inbox.rows()]
    inbox.folder = tmp_path / "elsewhere"
    inbox.folder.mkdir()
    write(inbox, "a.parquet", ODD)
    assert [row["uid"] for row in inbox.rows()] == here


def test_progress_ends_at_the_part_s_rows(inbox):
    inbox.source = {"slice_rows": 10}
    inbox.pairs("a.parquet", 25)
    inbox.look()
    from mmdata.takedown.read_part import read_part

    seen: list[tuple[str, int, int]] = []
    read_part(inbox.corpus, inbox.workspace, "web-000000", lambda *step: seen.append(step))
    assert seen == [("rows", 10, 25), ("rows", 20, 25), ("rows", 25, 25), ("rows", 25, 25)]


def test_slices_cover_the_part(inbox):
    part = Part("web-000001", "web", str(Path("a")), 20, 45, "d")
    assert slice_spans(part, 10) == {"0000": (20, 30), "0001": (30, 40), "0002": (40, 45)}
