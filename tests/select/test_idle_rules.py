"""A rule that reads a column which no row of a source has says so, in the stage's report and in the status."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmdata.config import Filter, Score, Select
from mmdata.config.load import parse_corpus
from mmdata.inspect.corpus_status import corpus_status, to_json
from mmdata.select.idle_rules import idle_rules, idle_scores
from mmdata.select.score_summary import NamedScore
from mmdata.select.stage import select_samples
from mmdata.sources.catalog import update_catalog
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Part, PartStamp, Workspace
from tests.support.workspaces import build


def stamps_of(folder: Path, **columns: str) -> tuple[dict[Part, PartStamp], list[str]]:
    """The stamp of a part of COYO-like rows, and the warnings in the status of a corpus with both rules."""
    path = folder / "a.csv"
    path.write_text("url,text,score\nhttp://e/1,one,0.9\nhttp://e/2,two,0.1\n")
    source = {
        "name": "web",
        "kind": "pairs",
        "files": str(path),
        "columns": {"url": "url", "caption": "text", **columns},
    }
    rules = {"filter": {"max_punsafe": 0.5, "max_pwatermark": 0.5}}
    corpus = parse_corpus({"workspace": str(folder / "w"), "sources": [source], "select": rules})
    workspace = Workspace(corpus.workspace)
    update_catalog(corpus, workspace)
    (part,) = workspace.catalog().live_parts()
    read_part(corpus, workspace, part.name)
    stamp = workspace.part_stamp(part.name, "rows")
    assert stamp is not None
    status = corpus_status(corpus, workspace)
    assert all(warning in to_json(status, None, None) for warning in status.idle_rules)
    return {part: stamp}, list(status.idle_rules)


def test_a_rule_without_its_column_is_named_with_the_source_and_the_remedy(tmp_path: Path) -> None:
    stamps, warnings = stamps_of(tmp_path, pwatermark="score")
    assert warnings == idle_rules(Filter(max_punsafe=0.5, max_pwatermark=0.5), stamps, Score())
    (warning,) = warnings
    assert warning.startswith("select.filter.max_punsafe judges no row of source web")
    assert "Remedy: name the column that holds it, columns: {punsafe: <column>}" in warning
    assert "set score.nsfw: true" in warning
    assert idle_rules(Filter(max_punsafe=0.5, max_pwatermark=0.5), stamps, Score(nsfw=True)) == []


def test_a_mapped_column_or_no_rule_gives_no_warning(tmp_path: Path) -> None:
    stamps, warnings = stamps_of(tmp_path, punsafe="score", pwatermark="score")
    assert warnings == []
    assert idle_rules(Filter(), stamps, Score()) == []


def test_the_report_of_the_selection_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.select.stage.idle_rules", lambda settings, stamps, score: [f"{len(stamps)} parts"])
    built = build(str(tmp_path), {"web-000000": range(6)})
    for _ in range(2):  # the second time the tables are reused
        report = select_samples(built.corpus, built.workspace)
        assert report.tables["rules that judge nothing"] == [{"warning": "1 parts"}]


@pytest.mark.parametrize(("required", "judges"), [(False, "judges no row"), (True, "drops every row")])
def test_a_score_whose_column_no_row_has_is_named(tmp_path: Path, required: bool, judges: str) -> None:
    kinds = {"aesthetic": {"kind": "column", "column": "AESTETIC", "required": required}}
    built = build(
        str(tmp_path), {"web-000000": range(6)}, select={"scores": kinds, "filter": {"min_scores": {"aesthetic": 5}}}
    )
    (row,) = select_samples(built.corpus, built.workspace).tables["rules that judge nothing"]
    assert f"score aesthetic {judges}: no row has a number in its source's column AESTETIC. Remedy" in row["warning"]


def test_a_score_that_some_rows_have_or_no_rule_uses_gives_no_warning() -> None:
    select = Select.model_validate(
        {
            "scores": {name: {"kind": "column", "column": name} for name in ("a", "b")},
            "filter": {"min_scores": {"a": 1}},
        }
    )
    some, none = (NamedScore(np.array(values, np.float32), None) for values in ([np.nan, 2], [np.nan]))
    assert idle_scores(select, {"a": some, "b": none}) == []
    assert len(idle_scores(select, {"a": none, "b": none})) == 1
