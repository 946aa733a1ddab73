"""Packing: rows that hold what they can, the same whoever packs."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.row_layout import pack

LENGTHS = st.lists(st.integers(0, 130), max_size=60)


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, capacity=st.integers(1, 100))
def test_rows_hold_every_sample_once_and_no_more_than_fits(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(min(max(lengths[sample], 1), capacity) for sample in row) <= capacity
        assert row == sorted(row)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert pack(np.array(lengths, np.int64), capacity) == rows
    assert pack(tuple(lengths), capacity) == rows


def test_what_is_too_long_has_a_row_to_itself_and_what_is_empty_a_place() -> None:
    assert pack([], 8) == []
    assert pack([99, 4, 4, 0], 8) == [[0], [1, 2], [3]]
    assert pack([5, 3, 5, 3], 8) == [[0, 1], [2, 3]]


def test_the_tightest_row_is_filled_first() -> None:
    """Best fit: the 3 goes where it leaves nothing, not where it fits first."""
    assert pack([6, 7, 3], 10) == [[0], [1, 2]]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_never_far_from_the_best_packing(lengths: list[int]) -> None:
    """Best-fit decreasing needs at most 11/9 of the fewest rows and one more; the fewest are found by trying all."""
    best = fewest(tuple(sorted(lengths, reverse=True)), 30)
    assert best <= len(pack(lengths, 30)) <= 11 / 9 * best + 1


@cache
def fewest(lengths: tuple[int, ...], capacity: int) -> int:
    """The fewest rows that hold these lengths, by trying all of them."""

    def fewest_from(at: int, room: tuple[int, ...], best: int) -> int:
        if len(room) >= best:
            return best
        if at == len(lengths):
            return len(room)
        for row in {left: index for index, left in enumerate(room)}.values():  # rows alike are one
            if room[row] >= lengths[at]:
                filled = tuple(sorted((*room[:row], room[row] - lengths[at], *room[row + 1 :])))
                best = fewest_from(at + 1, filled, best)
        return fewest_from(at + 1, tuple(sorted((*room, capacity - lengths[at]))), best)

    return fewest_from(0, (), len(lengths) + 1)


def test_captions_fill_rows_almost_wholly() -> None:
    draw = np.random.default_rng(0)
    for capacity in (512, 1024, 4096):
        lengths = np.minimum(draw.lognormal(4.2, 0.7, 2000).astype(int) + 50, capacity)
        assert len(pack(lengths.tolist(), capacity)) <= math.ceil(1.03 * lengths.sum() / capacity)
