"""Packing: decides from lengths alone, before a sample is read, which samples share a row of the language model."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: rows of samples whose lengths sum to at most `capacity`.

    Args:
        lengths: tokens of each sample; a length over `capacity` counts as `capacity`.

    Returns:
        Rows of indices into `lengths`, ascending in each row; rows are sorted by their first sample.
    """
    clipped = [min(max(length, 1), capacity) for length in lengths]
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for sample in sorted(range(len(clipped)), key=lambda at: (-clipped[at], at)):
        at = bisect_left(room, (clipped[sample], -1))
        if at == len(room):
            rows.append([])
            left, row = capacity, len(rows) - 1
        else:
            left, row = room.pop(at)
        rows[row].append(sample)
        if left - clipped[sample] > 0:
            insort(room, (left - clipped[sample], row))
    return sorted((sorted(row) for row in rows), key=lambda row: row[0])
