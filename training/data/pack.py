"""Packing: which samples share a row of the language model. Decided from lengths alone, before anything is read."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: rows of samples whose lengths sum to at most `capacity`.

    Args:
        lengths: tokens of each sample, in the order of the window; longer than `capacity` counts as `capacity`.

    Returns:
        Rows of indices into `lengths`, ascending in each row, rows in order of their first sample. The same
        lengths give the same rows, whoever asks.
    """
    clipped = [min(max(length, 1), capacity) for length in lengths]
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for sample in sorted(range(len(clipped)), key=lambda one: (-clipped[one], one)):
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
