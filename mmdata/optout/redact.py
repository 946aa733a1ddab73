"""Empties opted-out rows of a table: each row stays with its uid, but loses its content. Pure functions.

The result equals what the stages write for a sample that was opted out before it was fetched, so it does not matter
when a sample is opted out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.optout.state import OPT_OUT

ROWS_KEPT = ("uid", "source", "part", "kind", "copies", "row")
"""The columns that a row keeps: its identity, and the number of source rows that it replaces."""

TEXT_FEATURES = ("uid", "lang", "lang_prob", "n_words", "n_chars")
"""Features of the caption alone; they stay if only the medium is left out."""


def redacted_rows(table: pa.Table, chosen: np.ndarray) -> pa.Table:
    """A rows table whose chosen rows have the problem `opt_out`, and no URL or caption."""
    return _blanked(table, chosen, ROWS_KEPT, {"problem": OPT_OUT})


def redacted_media(table: pa.Table, chosen: np.ndarray, by_content: np.ndarray) -> pa.Table:
    """A media table whose chosen records are refused and have no stored members.

    Args:
        chosen: records to empty, bool (n,).
        by_content: records that are refused for the content of their file, bool (n,). Their rows stay, and they keep
            the SHA-256 that says which file was refused.
    """
    refused: dict[str, str | int] = {"status": "refused", "error": OPT_OUT, "detail": OPT_OUT, "attempts": 0}
    table = _blanked(table, by_content & ~chosen, ("uid", "sha256"), refused)
    return _blanked(table, chosen, ("uid",), refused)


def redacted_features(table: pa.Table, chosen: np.ndarray, by_content: np.ndarray) -> pa.Table:
    """A features table whose chosen rows are empty; rows of `by_content` keep the features of their caption."""
    return _blanked(_blanked(table, by_content & ~chosen, TEXT_FEATURES, {}), chosen, ("uid",), {})


def rows_counts(before: Mapping[str, int], table: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """The counts of a rows table with opted-out rows, and how many rows have each problem.

    Counts of read and repeated rows stay as they were `before`.
    """
    problems = pc.value_counts(table["problem"].drop_null()).to_pylist()
    reasons = {str(problem["values"]): int(problem["counts"]) for problem in problems}
    refused = reasons.get(OPT_OUT, 0)
    bad = sum(reasons.values()) - refused
    new_counts = {"uids": table.num_rows, "usable": table.num_rows - bad - refused, "bad": bad}
    counts = {**before, **({name: value for name, value in new_counts.items() if name in before})}
    counts.pop(OPT_OUT, None)
    return counts | ({OPT_OUT: refused} if refused else {}), dict(sorted(reasons.items()))


def _blanked(table: pa.Table, chosen: np.ndarray, kept: tuple[str, ...], reasons: Mapping[str, str | int]) -> pa.Table:
    """The table with nulls in the chosen rows, except in the columns `kept`; `reasons` are written to theirs."""
    if not chosen.any():
        return table
    mask = pa.array(chosen)
    columns = []
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if field.name in reasons:
            column = pc.if_else(mask, pa.scalar(reasons[field.name], field.type), column)
        elif field.name not in kept:
            # `take` really drops the values of the chosen rows, a validity mask would keep them
            column = column.take(pa.array(np.arange(len(column)), mask=chosen))
        columns.append(column)
    return pa.table(columns, schema=table.schema)
