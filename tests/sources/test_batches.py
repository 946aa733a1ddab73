"""Batches keep row numbers and columns together."""

from __future__ import annotations

from mmdata.sources.batches import Batch, unreadable_rows


def test_a_split_batch_keeps_its_row_numbers_and_columns() -> None:
    columns = [[f"{name}{row}" for row in range(5)] for name in ("u", "c", "l", "h", "x", "p", "s", "e", "m")]
    head, tail = Batch(10, *columns).split(2)
    assert (head.first, len(head), tail.first, len(tail)) == (10, 2, 12, 3)
    assert [[*left, *right] for left, right in zip(head.columns(), tail.columns(), strict=True)] == columns
    assert (tail.urls[0], tail.ends[-1]) == ("u2", "e4")


def test_unreadable_rows_say_nothing_but_their_problem() -> None:
    batch = unreadable_rows(7, 3, "unreadable")
    assert (batch.first, len(batch), batch.problems) == (7, 3, ["unreadable"] * 3)
    assert {value for column in batch.columns() if column is not batch.problems for value in column} == {None}
