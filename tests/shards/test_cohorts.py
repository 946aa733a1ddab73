"""Cohorts, buckets and the order within a shard."""

from __future__ import annotations

import itertools
from random import Random

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mmdata.samples import sample_uid
from mmdata.shards.cohorts import MAX_PARTS, Cohort, assign_cohorts, bucket_count, kept_buckets, place, separated


def samples_of(repeats: list[int]) -> pl.DataFrame:
    rows = [(sample_uid(None, str(i)), copy) for i, count in enumerate(repeats) for copy in range(count)]
    return pl.DataFrame(rows, schema={"uid": pl.String, "copy": pl.Int32}, orient="row")


def test_new_parts_open_new_cohorts_and_old_ones_stay_where_they_are() -> None:
    first = assign_cohorts([f"web-{i:06d}" for i in range(70)], [])
    assert [(c.name, len(c.parts)) for c in first] == [("c0000", MAX_PARTS), ("c0001", 6)]
    second = assign_cohorts(["web-000000", "web-000099"], first)
    assert second[:2] == first
    assert second[2] == Cohort("c0002", ("web-000099",), {})
    assert Cohort.from_json(first[0].to_json()) == first[0]


def test_buckets_hold_about_shard_mb() -> None:
    assert [bucket_count(b, 1.0) for b in (0, 1, 1_000_000, 1_000_001)] == [1, 1, 1, 2]


@given(st.lists(st.integers(1, 4), max_size=40), st.integers(1, 6), st.randoms())
def test_placing_does_not_depend_on_the_order_of_rows(repeats: list[int], buckets: int, random: Random) -> None:
    samples = samples_of(repeats)
    order = list(range(len(samples)))
    random.shuffle(order)
    placed, shuffled = place(samples, buckets, 0, "c"), place(samples[order], buckets, 0, "c")
    assert placed.equals(shuffled)
    assert placed.drop("bucket").sort("uid", "copy").equals(samples.sort("uid", "copy"))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.integers(1, 6))
def test_copies_are_never_neighbours_where_anything_can_part_them(repeats: list[int], buckets: int) -> None:
    for bucket in place(samples_of(repeats), buckets, 0, "c").partition_by("bucket"):
        uids = bucket["uid"].to_list()
        most = max(uids.count(uid) for uid in uids)
        if most <= (len(uids) + 1) // 2:
            assert all(a != b for a, b in itertools.pairwise(uids))


def test_copies_stand_in_different_shards_where_there_are_enough() -> None:
    placed = place(samples_of([3] * 50), 5, 0, "c")
    assert placed.group_by("uid").agg(pl.col("bucket").n_unique())["bucket"].to_list() == [3] * 50


def test_adding_samples_moves_none() -> None:
    fewer, more = place(samples_of([1] * 50), 4, 0, "c"), place(samples_of([1] * 60), 4, 0, "c")
    kept = more.filter(pl.col("uid").is_in(fewer["uid"].implode()))
    assert kept.equals(fewer)


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_separated_is_a_permutation_that_changes_nothing_without_need(uids: list[str]) -> None:
    order = separated(uids)
    assert sorted(order) == list(range(len(uids)))
    if all(a != b for a, b in itertools.pairwise(uids)):
        assert order == list(range(len(uids)))


def test_the_number_of_buckets_is_kept_while_it_fits() -> None:
    assert kept_buckets(None, 5_000_000, 1.0) == 5
    assert [kept_buckets(known, 5_000_000, 1.0) for known in (2, 3, 5, 10, 11)] == [5, 3, 5, 10, 5]
