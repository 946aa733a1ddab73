"""Caps by host and registrable domain: exact, by score or hash, and no reshuffle when a corpus grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.releases.draft import read_draft, release_inputs
from mmdata.select.domains import REASON, over_cap
from mmdata.select.stage import select_samples
from tests.support.selecting import build, corpus_for, publish, sample, selection

rows = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 10**6)), unique_by=lambda x: x[1])


@given(rows, st.integers(1, 5))
def test_a_cap_keeps_exactly_the_best_of_each_group(given_rows: list[tuple[str | None, int]], most: int) -> None:
    groups = pl.Series([group for group, _ in given_rows], dtype=pl.String)
    order = np.array([place for _, place in given_rows], np.int64)
    gone = set(over_cap(groups, order, most).tolist())
    for name in ("a", "b", "c"):
        own = [row for row, (group, _) in enumerate(given_rows) if group == name]
        best = sorted(own, key=lambda row: given_rows[row][1])[:most]
        assert set(own) - gone == set(best)
    assert not any(given_rows[row][0] is None for row in gone)


@given(rows, rows, st.integers(1, 5))
def test_growth_displaces_no_more_rows_than_come_and_brings_none_back(
    old: list[tuple[str | None, int]], new: list[tuple[str | None, int]], most: int
) -> None:
    known = {place for _, place in old}
    grown = old + [row for row in new if row[1] not in known]

    def kept(all_rows: list[tuple[str | None, int]]) -> set[int]:
        groups = pl.Series([group for group, _ in all_rows], dtype=pl.String)
        gone = over_cap(groups, np.array([place for _, place in all_rows], np.int64), most)
        return set(range(len(all_rows))) - set(gone.tolist())

    before, after = kept(old), {row for row in kept(grown) if row < len(old)}
    assert after <= before
    assert len(before - after) <= len(grown) - len(old)


def samples(count: int, site: str, **given: Any) -> list[dict[str, Any]]:
    return [sample(n, url=f"https://{site}/{n}.jpg", caption=f"{site} {n}", **given) for n in range(count)]


def select(root: Path, balance: dict[str, Any], *slices: list[dict[str, Any]]) -> tuple[pl.DataFrame, Any, Any]:
    corpus = corpus_for(root, {"balance": {"max_ratio": None, **balance}})
    workspace = build(corpus, {"web-000000": slices})
    select_samples(corpus, workspace)
    return selection(workspace), corpus, workspace


def test_a_selection_holds_at_most_so_many_of_a_host_and_a_domain_the_best_ones(tmp_path: Path) -> None:
    given = [*samples(30, "a.big.example"), *samples(30, "b.big.example"), *samples(3, "small.example")]
    found, _, _ = select(tmp_path, {"max_per_host": 10, "max_per_domain": 15}, given[::2], given[1::2])
    table = found.join(pl.DataFrame([{"uid": one["uid"], "url": one["url"]} for one in given]), on="uid")
    for site, most in (("a.big.example", 10), ("b.big.example", 10), ("small.example", 3)):
        assert table.filter(pl.col("url").str.contains(f"//{site}/"), pl.col("keep")).height <= most
    big = table.filter(pl.col("url").str.contains("big.example"))
    assert big["keep"].sum() == 15
    assert set(big.filter(~pl.col("keep"))["reason"]) == {REASON}
    for _, own in big.group_by(pl.col("url").str.extract("//([^/]*)/")):  # of each host, what stays scores best
        kept, gone = own.filter("keep")["clip_score"], own.filter(~pl.col("keep"))["clip_score"]
        assert kept.min() > gone.max()  # type: ignore[operator]
    assert table.filter(pl.col("url").str.contains("small"))["keep"].all()


@pytest.mark.parametrize("by", ["score", "hash"])
def test_a_corpus_that_grows_keeps_what_it_had_but_for_what_is_displaced(tmp_path: Path, by: str) -> None:
    settings = {"max_per_domain": 20, "keep_of_domain": by}
    old, new = samples(40, "one.example"), samples(50, "one.example")[40:] + samples(30, "two.example")
    before, corpus, workspace = select(tmp_path, settings, old)
    publish(workspace, read_draft(workspace).release_id)
    build(corpus, {"web-000001": [new]})
    select_samples(corpus, workspace)
    kept = set(before.filter("keep")["uid"])
    after = set(selection(workspace).filter("keep")["uid"])
    gone = kept - after
    assert len(gone) <= 10
    assert after & {one["uid"] for one in old} <= kept
    assert len(after) == 40


def test_hash_and_score_choose_differently_and_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    given = samples(60, "one.example")
    kept = {}
    for name, by, rows_given in (("s", "score", given), ("h", "hash", given), ("r", "hash", given[::-1])):
        found, _, _ = select(
            tmp_path / name, {"max_per_host": 20, "keep_of_domain": by}, rows_given[:25], rows_given[25:]
        )
        kept[name] = set(found.filter("keep")["uid"])
    assert kept["h"] == kept["r"]
    assert kept["h"] != kept["s"]


def test_without_a_cap_nothing_is_counted_and_no_release_gets_another_id(tmp_path: Path) -> None:
    plain = corpus_for(tmp_path)
    listed = corpus_for(tmp_path, {"balance": {"max_ratio": None, "domain_suffixes": ["github.io"]}})
    capped = corpus_for(tmp_path, {"balance": {"max_ratio": None, "max_per_domain": 5}})
    workspace = build(plain, {"web-000000": [samples(30, "one.example")]})
    inputs = [release_inputs(one, workspace, ["web-000000"]) for one in (plain, listed, capped)]
    assert inputs[0] == inputs[1] != inputs[2]
    select_samples(plain, workspace)
    assert selection(workspace)["keep"].all()


def test_text_without_a_url_has_no_host(tmp_path: Path) -> None:
    texts = [sample(n, url=None, kind="text", caption=f"words {n}", clip_score=None) for n in range(9)]
    found, _, _ = select(tmp_path, {"max_per_host": 1}, texts)
    assert found["keep"].all()
