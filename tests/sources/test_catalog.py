"""The catalogue: files known by content, parts that keep their names, faults that hold nothing else up."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.engine.freshness import plan_parts
from mmdata.errors import UserError
from mmdata.inspect.corpus_status import corpus_status
from mmdata.sources import catalog as catalog_module
from mmdata.sources.catalog import bad_sources, update_catalog
from mmdata.workspace.layout import Workspace


def entry(inbox, name: str) -> dict:
    return dict(inbox.workspace.catalog().files[str(inbox.folder / "inbox" / name)])


def test_a_file_is_cut_into_parts_of_at_most_part_rows(inbox):
    inbox.source = {"part_rows": 10}
    inbox.pairs("b.parquet", 5)
    inbox.pairs("a.parquet", 25)
    report = inbox.look()
    parts = inbox.workspace.catalog().live_parts()
    assert [(p.name, Path(p.path).name, p.start, p.stop) for p in parts] == [
        ("web-000000", "a.parquet", 0, 10),
        ("web-000001", "a.parquet", 10, 20),
        ("web-000002", "a.parquet", 20, 25),
        ("web-000003", "b.parquet", 0, 5),
    ]
    assert report.counts["rows"] == 30
    assert report.counts["parts_added"] == 4
    assert entry(inbox, "a.parquet")["parts"] == ["web-000000", "web-000001", "web-000002"]


def test_looking_again_changes_nothing_and_hashes_nothing(inbox, monkeypatch):
    inbox.pairs("a.parquet", 5)
    inbox.look()
    before = inbox.workspace.catalog_path.read_bytes()

    def never(path):
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(catalog_module, "file_sha256", never)
    report = inbox.look()
    assert inbox.workspace.catalog_path.read_bytes() == before
    assert report.counts["parts_added"] == report.counts["parts_changed"] == report.counts["parts_removed"] == 0


def test_a_touched_file_is_hashed_but_its_parts_are_as_before(inbox):
    path = inbox.pairs("a.parquet", 5)
    inbox.look()
    before = inbox.workspace.catalog().parts
    os.utime(path, ns=(1, 1))
    report = inbox.look()
    assert inbox.workspace.catalog().parts == before
    assert report.counts["parts_changed"] == 0


def test_a_changed_file_keeps_part_names_and_makes_them_stale(inbox):
    inbox.source = {"part_rows": 10}
    inbox.pairs("a.parquet", 25)
    inbox.rows()
    assert all("rows" not in plan.stale for plan in plan_parts(inbox.corpus, inbox.workspace))
    old = inbox.workspace.catalog().parts
    inbox.pairs("a.parquet", 15, first=100)
    report = inbox.look()
    new = inbox.workspace.catalog().parts
    assert (report.counts["parts_changed"], report.counts["parts_removed"]) == (2, 1)
    assert inbox.live() == ["web-000000", "web-000001"]
    assert new["web-000002"].removed
    assert new["web-000000"].digest != old["web-000000"].digest
    assert all("rows" in plan.stale for plan in plan_parts(inbox.corpus, inbox.workspace))


def test_a_part_name_is_never_given_to_other_rows(inbox):
    inbox.pairs("a.parquet", 5)
    inbox.pairs("b.parquet", 6)
    inbox.look()
    (inbox.folder / "inbox/b.parquet").unlink()
    assert inbox.look().counts["parts_removed"] == 1
    inbox.pairs("c.parquet", 7)
    inbox.look()
    assert inbox.live() == ["web-000000", "web-000002"]
    assert inbox.workspace.catalog().parts["web-000001"].removed


def test_a_file_that_comes_back_gets_its_part_back(inbox):
    inbox.pairs("a.parquet", 5)
    path = inbox.pairs("b.parquet", 6)
    inbox.look()
    content = path.read_bytes()
    path.unlink()
    inbox.look()
    path.write_bytes(content)
    assert inbox.look().counts["parts_added"] == 1
    assert inbox.live() == ["web-000000", "web-000001"]


def test_a_renamed_file_takes_its_parts_along(inbox):
    path = inbox.pairs("a.parquet", 5)
    inbox.rows()
    path.rename(inbox.path("z.parquet"))
    inbox.look()
    (part,) = inbox.workspace.catalog().live_parts()
    assert (part.name, Path(part.path).name) == ("web-000000", "z.parquet")
    (plan,) = plan_parts(inbox.corpus, inbox.workspace)
    assert "rows" not in plan.stale


def test_empty_and_broken_files_are_counted_and_the_others_read(inbox):
    inbox.pairs("good.parquet", 3)
    inbox.parquet("empty.parquet", {"URL": pa.array([], pa.string()), "TEXT": pa.array([], pa.string())})
    inbox.text("zero.parquet", b"")
    inbox.text("junk.parquet", b"PAR1 this is no parquet PAR1")
    inbox.text("cut.parquet", inbox.pairs("whole.parquet", 50).read_bytes()[:300])
    inbox.text("cut.csv.gz", gzip.compress(b"URL,TEXT\n" + b"http://a/1,x\n" * 5000)[:60])
    inbox.text("notes.docx", b"hello")
    inbox.parquet("other.parquet", {"id": [1], "name": ["x"]})
    report = inbox.look()
    statuses = {Path(p).name: about["status"] for p, about in inbox.workspace.catalog().files.items()}
    assert statuses == {
        "good.parquet": "ok",
        "whole.parquet": "ok",
        "empty.parquet": "empty",
        "zero.parquet": "empty",
        "junk.parquet": "unreadable",
        "cut.parquet": "unreadable",
        "cut.csv.gz": "unreadable",
        "notes.docx": "unreadable",
        "other.parquet": "unreadable",
    }
    assert report.reasons == {"file_empty": 2, "file_unreadable": 5}
    assert "id, name" in entry(inbox, "other.parquet")["error"]
    assert "junk.parquet" in entry(inbox, "junk.parquet")["error"]
    assert len(inbox.rows()) == 53


def test_no_file_with_the_columns_is_an_error_that_lists_those_found(inbox):
    inbox.parquet("a.parquet", {"link": ["http://a/"], "alt": ["x"]})
    inbox.text("junk.parquet", b"junk")
    with pytest.raises(UserError, match=r"link, alt.*kind `pairs`"):
        inbox.look()
    assert not inbox.workspace.catalog_path.exists()


def test_only_broken_files_are_no_user_error(inbox):
    inbox.text("junk.parquet", b"junk")
    assert inbox.look().reasons == {"file_unreadable": 1}
    inbox.text("empty.csv", b"")
    inbox.look()
    bad = bad_sources(inbox.corpus.sources, inbox.workspace.catalog().files)
    assert "source web: none of its files can be read" in bad["web"]
    inbox.text("junk.parquet", b"")
    assert inbox.look().reasons == {"file_empty": 2}
    assert bad_sources(inbox.corpus.sources, inbox.workspace.catalog().files) == {}


def test_a_file_that_became_unreadable_keeps_its_parts(inbox):
    path = inbox.pairs("a.parquet", 5)
    inbox.pairs("b.parquet", 5)
    inbox.look()
    path.write_bytes(b"half a copy")
    inbox.look()
    assert inbox.live() == ["web-000000", "web-000001"]
    assert entry(inbox, "a.parquet")["status"] == "unreadable"


def test_two_sources_may_not_claim_one_file(inbox):
    inbox.pairs("a.parquet", 2)
    files = str(inbox.folder / "inbox/*.parquet")
    sources = [{"name": name, "kind": "laion", "files": files} for name in ("one", "two")]
    corpus = parse_corpus({"workspace": str(inbox.folder / "w"), "sources": sources})
    with pytest.raises(UserError, match="belongs to source one and to source two"):
        update_catalog(corpus, Workspace(corpus.workspace))


def test_two_workspaces_have_the_same_parts(inbox, tmp_path):
    inbox.source = {"part_rows": 7}
    for name in ("c.parquet", "a.parquet", "b.parquet"):
        inbox.pairs(name, 20)
    inbox.look()
    other = Workspace(str(tmp_path / "other"))
    update_catalog(inbox.corpus, other)
    assert other.catalog_path.read_bytes() == inbox.workspace.catalog_path.read_bytes()


def sources_of(inbox, *sources: dict) -> tuple[Corpus, Workspace]:
    data = {"workspace": str(inbox.folder / "workspace"), "sources": [*sources], "score": {"model": "demo"}}
    corpus = parse_corpus(data)
    return corpus, Workspace(corpus.workspace)


def test_a_source_that_cannot_be_read_holds_up_no_other(inbox):
    inbox.pairs("good.parquet", 3)
    inbox.text("cc3m.tsv", "a cat\thttp://e/1\n")
    pairs = {"kind": "pairs", "columns": {"url": "url", "caption": "caption"}}
    sources = [
        {"name": "good", "kind": "laion", "files": str(inbox.path("*.parquet"))},
        {"name": "cc3m", "files": str(inbox.path("*.tsv")), **pairs},
        {"name": "gone", "files": str(inbox.path("*.jsonl")), **pairs},
        {"name": "away", "files": "nostore://me:secret@bucket/*.csv", **pairs},
    ]
    corpus, workspace = sources_of(inbox, *sources)
    report = update_catalog(corpus, workspace)
    assert (report.counts["rows"], report.reasons) == (3, {"file_unreadable": 3})
    assert {part.source for part in workspace.catalog().live_parts()} == {"good"}
    bad = bad_sources(corpus.sources, workspace.catalog().files)
    assert bad.keys() == {"cc3m", "gone", "away"}
    assert "cannot be listed (ValueError: Unsupported filesystem: 'nostore')" in bad["away"]
    assert "secret" not in workspace.catalog_path.read_text() + bad["away"]
    assert "header: [caption, url]" in bad["cc3m"]
    assert "no file matches" in bad["gone"]
    assert set(corpus_status(corpus, workspace).unreadable.values()) <= set("\n".join(bad.values()).split("\n")) | {
        entry["error"] for entry in workspace.catalog().files.values()
    }
    before = workspace.catalog_path.read_bytes()
    update_catalog(corpus, workspace)
    assert workspace.catalog_path.read_bytes() == before


def test_a_source_whose_folder_is_not_mounted_keeps_its_parts(inbox):
    inbox.pairs("a.parquet", 3)
    other = inbox.text("b.csv", "URL,TEXT\nhttp://e/1,one\n")
    sources = [
        {"name": name, "kind": "laion", "files": str(inbox.path(glob))}
        for name, glob in (("a", "*.parquet"), ("b", "*.csv"))
    ]
    corpus, workspace = sources_of(inbox, *sources)
    update_catalog(corpus, workspace)
    parts = workspace.catalog().parts
    other.rename(inbox.folder / "b.csv")
    report = update_catalog(corpus, workspace)
    assert (workspace.catalog().parts, report.counts["parts_removed"]) == (parts, 0)
    assert bad_sources(corpus.sources, workspace.catalog().files).keys() == {"b"}
    (inbox.folder / "b.csv").rename(other)
    update_catalog(corpus, workspace)
    assert (workspace.catalog().parts, bad_sources(corpus.sources, workspace.catalog().files)) == (parts, {})


def test_a_file_that_moves_to_another_hive_folder_is_read_again(inbox):
    inbox.source = {"files": str(inbox.folder / "inbox/*/*.parquet")}
    for lang in ("en", "de"):
        inbox.path(f"lang={lang}").mkdir(parents=True)
    path = inbox.pairs("lang=en/a.parquet", 2)
    inbox.rows()
    path.rename(inbox.path("lang=de/a.parquet"))
    assert [row["extra"] for row in inbox.rows()] == ['{"lang":"de"}'] * 2
