"""One percent more: what a refresh writes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmdata.publish.verify import verify_release
from tests.inspect.conftest import Nightly, copy_of

FULL: dict[str, Any] = {
    "filter": {"top_fraction": 0.9},
    "dedup": {"phash_bits": 4, "semantic_eps": 0.001, "clusters": 12},
    "balance": {"max_ratio": 3.0},
    "oversample": {"threshold": 0.2, "max_repeats": 3},
}


def _build_600(folder: Path, sections: dict[str, Any]) -> Nightly:
    made = Nightly(folder, sections)
    made.write("a.parquet", range(600))
    made.write("b.parquet", range(40, 60))
    made.refresh()
    return made


@pytest.fixture(scope="module")
def shared_large(tmp_path_factory: pytest.TempPathFactory) -> Nightly:
    return _build_600(tmp_path_factory.mktemp("large"), {})


@pytest.fixture
def large(shared_large: Nightly, tmp_path: Path) -> Nightly:
    """A release of 600 rows."""
    return copy_of(shared_large, tmp_path / "corpus")


@pytest.fixture(scope="module")
def shared_selected(tmp_path_factory: pytest.TempPathFactory) -> Nightly:
    return _build_600(tmp_path_factory.mktemp("selected"), {"select": FULL})


@pytest.fixture
def selected(shared_selected: Nightly, tmp_path: Path) -> Nightly:
    """The same rows with every decision of selection turned on."""
    return copy_of(shared_selected, tmp_path / "corpus")


def cohort(name: str) -> str:
    return name.split("-")[1]


def test_one_percent_in_a_new_file_writes_its_own_shards_and_no_other(large: Nightly) -> None:
    first = large.latest
    old, before = large.release_bytes(first), {shard["name"] for shard in large.shards(first)}
    large.write("c.parquet", range(1000, 1006))
    second = large.refresh()
    new = {shard["name"] for shard in large.shards(second)} - before
    assert {cohort(name) for name in new} == {"c0001"}
    assert before <= {shard["name"] for shard in large.shards(second)}
    assert large.release_bytes(first) == old
    verify_release(large.workspace.release_dir(second))
    again = large.publish()
    assert large.workspace.latest() == second
    facts = {one["name"]: one for one in large.shards(second)}
    assert again.counts["shards_new"] == len(new)
    assert again.counts["bytes_new"] == sum(facts[name]["bytes"] for name in new)
    assert again.counts["samples_new"] == 6
    assert again.counts["shards_written"] == 0


def test_one_percent_into_an_old_file_rewrites_only_the_shards_that_they_fall_into(large: Nightly) -> None:
    first = large.latest
    held, old = large.members(first), large.release_bytes(first)
    large.write("a.parquet", [*range(600), *range(1000, 1006)])
    second = large.refresh()
    now = large.members(second)
    assert len(held) > 8
    assert len(set(now) - set(held)) <= 6, "six rows fall into six shards at most"
    kept = set(now) & set(held)
    assert all(now[name] == held[name] for name in kept)
    assert large.release_bytes(first) == old


@pytest.mark.parametrize("where", [pytest.param("c.parquet", marks=pytest.mark.slow), "a.parquet"])
def test_with_every_decision_on_a_percent_more_rewrites_only_shards_whose_members_changed(
    selected: Nightly, where: str
) -> None:
    """Rates, clusters, split and repeats are kept while they fit, so that the old rows' decisions stay."""
    first = selected.latest
    held = selected.members(first)
    selected.write(where, [*(range(600) if where == "a.parquet" else ()), *range(1000, 1006)])
    second = selected.refresh()
    now = selected.members(second)
    old_keys, new_keys = set().union(*held.values()), set().union(*now.values())
    moved = {key[:32] for key in old_keys ^ new_keys}
    assert len(moved) <= 18, "the new rows, and those that the top fraction lets in or out for them"
    gone = set(held) - set(now)
    touched = {name for name, keys in held.items() if keys & (old_keys - new_keys)}
    entered = len(new_keys - old_keys)
    assert len(gone) <= len(touched) + entered
    assert len(set(now) & set(held)) >= len(held) - len(touched) - entered
    for name in set(now) & set(held):
        assert now[name] == held[name]
