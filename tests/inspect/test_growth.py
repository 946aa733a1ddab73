"""One percent more: what a refresh writes, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from mmdata.publish.verify import verify_release
from tests.inspect.conftest import Nightly

FULL: dict[str, Any] = {
    "filter": {"top_fraction": 0.9},
    "dedup": {"phash_bits": 4, "semantic_eps": 0.001, "clusters": 12},
    "balance": {"max_ratio": 3.0},
    "oversample": {"threshold": 0.2, "max_repeats": 3},
}


def cohort(name: str) -> str:
    return name.split("-")[1]


def test_one_percent_in_a_new_file_writes_its_own_shards_and_no_other(nightly: Nightly) -> None:
    nightly.write("a.parquet", range(600))
    first = nightly.refresh()
    old, before = nightly.release_bytes(first), {one["name"] for one in nightly.shards(first)}
    nightly.write("c.parquet", range(1000, 1006))
    second = nightly.refresh()
    new = {one["name"] for one in nightly.shards(second)} - before
    assert {cohort(name) for name in new} == {"c0001"}
    assert before <= {one["name"] for one in nightly.shards(second)}
    assert nightly.release_bytes(first) == old
    verify_release(nightly.workspace.release_dir(second))
    again = nightly.publish()
    assert nightly.workspace.latest() == second
    facts = {one["name"]: one for one in nightly.shards(second)}
    assert again.counts["shards_new"] == len(new)
    assert again.counts["bytes_new"] == sum(facts[name]["bytes"] for name in new)
    assert again.counts["samples_new"] == 6
    assert again.counts["shards_written"] == 0


def test_one_percent_into_an_old_file_rewrites_only_the_shards_that_they_fall_into(nightly: Nightly) -> None:
    nightly.write("a.parquet", range(600))
    first = nightly.refresh()
    held, old = nightly.members(first), nightly.release_bytes(first)
    nightly.write("a.parquet", [*range(600), *range(1000, 1006)])
    second = nightly.refresh()
    now = nightly.members(second)
    assert len(held) > 8
    assert len(set(now) - set(held)) <= 6, "six rows fall into six shards at most"
    kept = set(now) & set(held)
    assert all(now[name] == held[name] for name in kept)
    assert nightly.release_bytes(first) == old


@pytest.mark.parametrize("where", ["c.parquet", "a.parquet"])
def test_with_every_decision_on_a_percent_more_rewrites_only_shards_whose_members_changed(
    nightly: Nightly, where: str
) -> None:
    """Rates, clusters, split and repeats are kept while they fit, so that the old rows' decisions stay."""
    nightly.sections = {"select": FULL}
    nightly.write("a.parquet", range(600))
    first = nightly.refresh()
    held = nightly.members(first)
    nightly.write(where, [*(range(600) if where == "a.parquet" else ()), *range(1000, 1006)])
    second = nightly.refresh()
    now = nightly.members(second)
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
