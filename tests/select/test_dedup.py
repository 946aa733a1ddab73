"""Duplicates by value and by perceptual hash, against comparing every pair."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.select import dedup
from mmdata.select.dedup import keep_greedily, near_hashes, near_pairs, preference, same_value
from mmdata.select.verdicts import STAYS


def brute_force(hashes: list[int | None], rank: np.ndarray, bits: int) -> list[int]:
    """Walk rows best first; each goes to the best of those that stay and are within `bits`."""
    leaders, kept = [STAYS] * len(hashes), []
    for row in np.argsort(rank):
        own = hashes[row]
        if own is None:
            continue
        near = [other for other in kept if (own ^ hashes[other]).bit_count() <= bits]
        if near:
            leaders[row] = int(near[0])
        else:
            kept.append(row)
    return leaders


def clustered_hashes(rows: int, seed: int, flips: int = 6) -> list[int]:
    """Hashes around a few centres, as crops and re-encodings of the same pictures have."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(rows // 8, 1), dtype=np.uint64)
    found = rng.choice(centres, rows)
    for _ in range(flips):
        found ^= np.where(rng.random(rows) < 0.5, np.uint64(1) << rng.integers(0, 64, rows, dtype=np.uint64), 0)
    return [int(one) for one in found]


@given(
    st.lists(st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=60), st.integers(0, 16), st.randoms()
)
def test_phash_duplicates_are_those_of_comparing_every_pair(hashes: list, bits: int, random) -> None:
    rank = np.array(random.sample(range(len(hashes)), len(hashes)), np.uint32)
    found = near_hashes(pl.Series(hashes, dtype=pl.UInt64), rank, bits)
    assert found.tolist() == brute_force(hashes, rank, bits)


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_the_tables_find_what_comparing_every_pair_finds(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.unique(np.array(clustered_hashes(700, seed=bits), np.uint64))
    np.random.default_rng(0).shuffle(hashes)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= bits
    wanted = {(int(a), int(b)) for a, b in zip(*np.nonzero(near), strict=True) if a < b}
    assert wanted
    for agreeing in (1, 2, 3):
        monkeypatch.setattr(dedup, "_blocks_to_agree", lambda rows, bits, n=agreeing: n)
        pairs = [pair for low, high in near_pairs(hashes, bits) for pair in zip(low, high, strict=True)]
        assert len(pairs) == len(set(pairs))
        assert {(int(a), int(b)) for a, b in pairs} == wanted


@pytest.mark.parametrize("bits", [0, 2, 4])
def test_thousands_of_hashes_give_the_brute_force_answer_through_the_tables(bits: int) -> None:
    hashes = clustered_hashes(3000, seed=1)
    rank = np.random.default_rng(2).permutation(len(hashes)).astype(np.uint32)
    assert dedup._blocks_to_agree(3000, max(bits, 1)) > 0
    assert near_hashes(pl.Series(hashes, dtype=pl.UInt64), rank, bits).tolist() == brute_force(hashes, rank, bits)


@given(st.lists(st.none() | st.integers(0, 5)), st.randoms())
def test_of_equal_values_the_best_ranked_stays(values: list, random) -> None:
    rank = np.array(random.sample(range(len(values)), len(values)), np.int64)
    leaders = same_value(pl.Series(values, dtype=pl.UInt64), rank)
    for row, value in enumerate(values):
        equal = [other for other, one in enumerate(values) if one == value and value is not None]
        best = min(equal, key=lambda other: rank[other], default=row)
        assert leaders[row] == (STAYS if best == row else best)


@given(st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.5, math.nan])))
def test_preference_is_by_score_then_uid_and_no_number_is_last(scores: list[float]) -> None:
    values = np.array(scores, np.float32)
    wanted = sorted(range(len(scores)), key=lambda row: (-values[row] if np.isfinite(values[row]) else math.inf, row))
    assert np.argsort(preference(values)).tolist() == wanted


@settings(max_examples=50)
@given(st.integers(1, 30), st.data())
def test_rounds_choose_as_a_walk_in_order_does(rows: int, data: st.DataObject) -> None:
    every = [(a, b) for b in range(rows) for a in range(b)]
    pairs = data.draw(st.lists(st.sampled_from(every), max_size=80)) if every else []
    wanted, kept = [STAYS] * rows, []
    for row in range(rows):
        like = [other for other in kept if (other, row) in pairs]
        if like:
            wanted[row] = like[0]
        else:
            kept.append(row)
    low, high = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    assert keep_greedily(rows, low, high).tolist() == wanted


def test_nothing_and_one_row_have_no_duplicates() -> None:
    for rows in (0, 1):
        hashes = pl.Series([7] * rows, dtype=pl.UInt64)
        rank = np.arange(rows)
        assert near_hashes(hashes, rank, 4).tolist() == same_value(hashes, rank).tolist() == [STAYS] * rows
