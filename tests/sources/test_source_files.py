"""Source files are found by pattern, on any file system."""

from __future__ import annotations

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.config.load import parse_corpus
from mmdata.errors import UserError
from mmdata.sources.catalog import update_catalog
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace


def test_a_pattern_without_files_is_an_error_that_names_it(inbox):
    with pytest.raises(UserError, match=r"source web: .*inbox/\*: no file matches it\. Remedy"):
        inbox.look()


def test_hidden_files_and_folders_are_left_out(inbox):
    inbox.pairs("a.parquet", 2)
    inbox.text(".tmp-b.parquet", b"half")
    inbox.path("folder.parquet").mkdir()
    assert inbox.look().counts["files"] == 1


def test_sources_on_another_file_system():
    files = fsspec.filesystem("memory")
    files.pipe("/sources-test/in/a.csv", b"URL,TEXT\nhttp://e/1,one\nhttp://e/2,two\nbad\n")
    with files.open("/sources-test/in/b.parquet", "wb") as file:
        pq.write_table(pa.table({"URL": ["http://e/3"], "TEXT": ["three"]}), file)
    source = {"name": "web", "kind": "laion", "files": "memory://sources-test/in/*"}
    corpus = parse_corpus({"workspace": "memory://sources-test/workspace", "sources": [source]})
    workspace = Workspace(corpus.workspace)
    assert update_catalog(corpus, workspace).counts["rows"] == 4
    before = workspace.catalog_path.read_bytes()
    update_catalog(corpus, workspace)
    assert workspace.catalog_path.read_bytes() == before
    reports = [read_part(corpus, workspace, part.name) for part in workspace.catalog().live_parts()]
    assert [dict(report.reasons) for report in reports] == [{"malformed_row": 1}, {}]
    files.rm("/sources-test", recursive=True)


def test_files_may_be_a_list_of_patterns_with_braces(inbox):
    for name in ("a.parquet", "b.parquet", "c.parquet", "x00.parquet", "x01.parquet", "x02.parquet"):
        inbox.pairs(name, 1)
    inbox.source = {
        "files": [str(inbox.path("{a,b}.parquet")), str(inbox.path("x{00..01}.parquet")), str(inbox.path("a.*"))]
    }
    inbox.look()
    assert [part.path.rpartition("/")[2] for part in inbox.workspace.catalog().live_parts()] == [
        "a.parquet", "b.parquet", "x00.parquet", "x01.parquet",
    ]  # fmt: skip


def test_a_file_of_no_known_format_says_which_there_are(inbox):
    inbox.pairs("a.parquet", 1)
    inbox.text("a.csv.7z", b"7z")
    assert inbox.look().reasons == {"file_unreadable": 1}
