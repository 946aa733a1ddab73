"""The settings of a source's filter."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config.load import parse_corpus
from mmdata.config.source_filter import SourceFilter
from mmdata.errors import UserError


def test_one_value_is_a_list_of_one() -> None:
    assert SourceFilter(one_of={"NSFW": "UNLIKELY"}).one_of == {"NSFW": ["UNLIKELY"]}


def test_an_unknown_key_names_the_nearest() -> None:
    corpus = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "a", "filter": {"min_sid": 3}}]}
    with pytest.raises(UserError, match="did you mean `min_side`"):
        parse_corpus(corpus)


def test_what_decides_is_what_is_set_and_the_state_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "uids.txt"
    path.write_text("a\n")
    rules = SourceFilter(min={"similarity": 0.3}, keep_ids=str(path))
    before = rules.decided_by()
    assert before["min"] == {"similarity": 0.3}
    assert set(before) == {"min", "keep_ids"}
    path.write_text("a\nb\n")
    assert rules.decided_by() != before
    assert SourceFilter().decided_by() == {}


def test_a_missing_list_is_named() -> None:
    with pytest.raises(UserError, match=r"/no/uids.npy: no such file.*filter.keep_ids.*Remedy"):
        SourceFilter(keep_ids="/no/uids.npy").decided_by()


def test_the_columns_that_rules_name_are_listed_once() -> None:
    rules = SourceFilter(min={"a": 1}, max={"a": 2, "b": 3}, drop_ids="x.txt", id_column="id")
    assert rules.columns == ["a", "b", "id"]
