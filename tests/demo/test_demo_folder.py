"""A demo is made once, byte by byte the same, and the sources read all of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from mmdata.config.load import load_corpus
from mmdata.demo.demo_folder import make_demo, open_demo
from mmdata.demo.recording_sources import recording_counts
from mmdata.errors import UserError
from mmdata.sources.catalog import update_catalog
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_existing_demo_is_used_as_it_is(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.site.rglob("*")}
    again = make_demo(demo.folder, demo.rows)
    assert again.reused
    assert (again.port, again.folder) == (demo.port, demo.folder)
    assert {path: path.stat().st_mtime_ns for path in demo.site.rglob("*")} == before


def test_a_demo_that_was_cut_off_is_made_again_byte_by_byte(demo, tmp_path):
    folder = tmp_path / "half"
    (folder / "site/pictures").mkdir(parents=True)
    mark = json.loads((demo.folder / "demo.json").read_text())
    (folder / "demo.json").write_text(json.dumps(mark | {"complete": False}))
    (folder / "site/pictures/half.png").write_bytes(b"half")
    assert open_demo(folder) is None
    again = make_demo(folder, demo.rows)
    assert not again.reused
    assert digests(again.folder) == {k: v for k, v in digests(demo.folder).items() if not k.startswith("workspace")}


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no demo"):
        make_demo(tmp_path, 150)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_sources_read_it_and_every_truth_has_its_row(demo, tmp_path):
    corpus = load_corpus(demo.config_path)
    workspace = Workspace(str(tmp_path))
    report = update_catalog(corpus, workspace)
    assert report.reasons == {"file_empty": 1}
    parts = workspace.catalog().live_parts()
    assert sum(part.stop - part.start for part in parts if part.source == "web") == demo.rows
    assert report.counts["rows"] == demo.rows + sum(recording_counts(demo.rows))
    assert 6 <= report.counts["parts"] <= 7
    copies_read: Counter[str] = Counter()
    for part in parts:
        read_part(corpus, workspace, part.name)
        if part.source != "web":
            continue
        stamp = workspace.part_stamp(part.name, "rows")
        assert stamp is not None
        for name in stamp.slices:
            table = read_table(workspace.table(part.name, "rows", name))
            copies_read.update(dict(zip(table["uid"].to_pylist(), table["copies"].to_pylist(), strict=True)))
    truth = pl.read_parquet(demo.truth_path)
    assert copies_read == Counter(truth["uid"].to_list())
    assert copies_read.total() == demo.rows
