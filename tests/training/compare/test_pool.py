"""The pool joins the corpus with releases of other workspaces, and refuses what does not compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.score.features_reader import ScorerMark
from tests.support.compared import IMAGE_DIM, Compared, make_compared
from tests.support.made_release import mixed_samples, write_release
from training.compare import pool as module
from training.compare.arms import changed, open_arms
from training.compare.pairs import PairTables
from training.compare.pool import Pool, open_pool


def opened(compared: Compared, cache: Path, *specs: str, held_out: str | None = None, **changes: str) -> Pool:
    corpus = compared.corpus
    for settings in changes.values():
        corpus = changed(corpus, settings)
    arms = open_arms(specs or ("raw",), corpus)
    return open_pool(corpus, arms, held_out, None, None, UPath(cache), lambda what, done, total: None)


def test_the_pool_of_a_corpus_is_all_its_pairs(compared: Compared, cache: Path) -> None:
    found = opened(compared, cache)
    assert found.frame["uid"].to_list() == sorted(compared.uids)
    assert found.scorer.name == "a test scorer"
    rows = np.array([5, 1, 9])
    assert found.vectors(rows).image.shape == (3, IMAGE_DIM)
    assert found.held_out is None


def test_concepts_are_those_of_the_list_or_else_clusters(compared: Compared, cache: Path, tmp_path: Path) -> None:
    found = opened(compared, cache)
    rows = np.arange(len(found.frame))
    clusters = found.concepts(found.frame, found.vectors(rows).image)
    assert 1 < len(set(clusters)) < len(clusters)
    (tmp_path / "concepts.txt").write_text("picture\n1\n")
    listed = opened(compared, cache, concepts=f"select.balance.concepts={tmp_path / 'concepts.txt'}")
    names = listed.concepts(listed.frame, listed.vectors(rows).image)
    assert set(names) == {"picture", "1"}, "the rarest that matches"


def test_a_held_out_table_that_names_no_pair_is_an_error(compared: Compared, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("0" * 32)
    with pytest.raises(UserError, match="none of its samples"):
        opened(compared, cache, held_out=str(tmp_path / "none.txt"))


def test_a_release_of_another_workspace_is_read_from_its_shards_if_it_has_no_tables(
    compared: Compared, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = write_release(tmp_path / "made", mixed_samples())
    asked = []

    def read(release: object, *_: object) -> PairTables:
        asked.append(release)
        return PairTables(opened(compared, cache).sources[0].frame[:0], [], ScorerMark("another", "beef"))

    monkeypatch.setattr(module, "read_shard_pairs", read)
    with pytest.raises(DataError, match="embedded by different models: a test scorer, another"):
        opened(compared, cache, "raw", str(workspace.root))
    assert len(asked) == 1


def test_a_release_of_another_workspace_is_read_from_its_tables(
    compared: Compared, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.compared import released

    other = make_compared(tmp_path / "other", pairs=60, seed=9)
    folder = released(other)
    monkeypatch.setattr(module, "read_shard_pairs", lambda *_: pytest.fail("the tables hold every pair"))
    arms = open_arms([str(folder), f"again:{folder}"], None)
    found = open_pool(None, arms, None, None, None, UPath(cache), lambda what, done, total: None)
    assert set(arms[0].samples["uid"]) <= set(found.frame["uid"])  # type: ignore[index]
    both = opened(compared, cache, "raw", str(folder))
    assert len(both.frame) > len(compared.uids)
    assert both.vectors(np.arange(len(both.frame))).has_both.all()


def test_nothing_scored_is_an_error(compared: Compared, cache: Path, tmp_path: Path) -> None:
    empty = changed(compared.corpus, "select.dedup.url=true").model_copy(update={"workspace": str(tmp_path / "empty")})
    with pytest.raises(UserError, match="mmdata build"):
        open_pool(empty, open_arms(["raw"], empty), None, None, None, UPath(cache), lambda what, done, total: None)
