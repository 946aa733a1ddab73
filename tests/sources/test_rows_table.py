"""The rows table of a slice: each row is counted, and each uid is there once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.config import Source
from mmdata.samples import ROWS, sample_uid
from mmdata.sources.batches import Batch
from mmdata.sources.row import read_rows
from mmdata.sources.rows_table import rows_table
from mmdata.storage.tables import read_table
from mmdata.urls import canonical_url
from mmdata.workspace.layout import Part

text_or_none = st.none() | st.text(max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(text_or_none, text_or_none), max_size=40), st.integers(1, 40))
def test_every_row_is_accounted_for_and_every_uid_stands_once(pairs, cut):
    part = Part("web-000000", "web", "in/a.parquet", 0, len(pairs), "d")
    nulls: list[str | None] = [None] * len(pairs)
    urls, captions = [url for url, _ in pairs], [caption for _, caption in pairs]
    whole = Batch(0, urls, captions, *[nulls] * 7)
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


def test_samples_with_a_score_of_the_source_are_counted(inbox):
    inbox.parquet("a.parquet", {"URL": ["http://e/1", "http://e/2"], "TEXT": ["x", "y"], "NSFW": ["UNSURE", None]})
    inbox.look()
    counts = inbox.read("web-000000").counts
    assert counts["with_punsafe"] == 1
    assert "with_pwatermark" not in counts
