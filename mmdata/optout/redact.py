"""Tables without what is to be left out: each row stays with its uid, and nothing else of it does. Pure.

They are the very tables that the stages would make of a source that never said more, so that it does not matter
whether a sample was left out before it was fetched or after.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.optout.state import REASON

ROWS_KEPT = ("uid", "source", "part", "kind", "copies", "row")
"""What stays of a row: its identity, and the count of source rows that it stands for."""

TEXT_FEATURES = ("uid", "lang", "lang_prob", "n_words", "n_chars")
"""What is measured of a caption alone; it stays where only the media is left out."""


def redacted_rows(table: pa.Table, chosen: np.ndarray) -> pa.Table:
    """A rows table in which the chosen rows have the problem `opt_out`, and neither URL nor words."""
    return _blanked(table, chosen, ROWS_KEPT, {"problem": REASON})


def redacted_media(table: pa.Table, chosen: np.ndarray, by_content: np.ndarray) -> pa.Table:
    """A media table in which the chosen records are refused, and address nothing.

    Args:
        by_content: records that are refused for the file that was fetched, whose rows stay; they keep its SHA-256, so
            that it is known what was refused.
    """
    refused: dict[str, str | int] = {"status": "refused", "error": REASON, "detail": REASON, "attempts": 0}
    table = _blanked(table, by_content & ~chosen, ("uid", "sha256"), refused)
    return _blanked(table, chosen, ("uid",), refused)


def redacted_features(table: pa.Table, chosen: np.ndarray, by_content: np.ndarray) -> pa.Table:
    """A features table in which the chosen rows hold nothing; those `by_content` hold what their caption comes to."""
    return _blanked(_blanked(table, by_content & ~chosen, TEXT_FEATURES, {}), chosen, ("uid",), {})


def rows_counts(before: Mapping[str, int], table: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """The counts of a rows table once some of it is left out, and its problems by name.

    Args:
        before: the counts when it was read; what was read and repeated does not change.
    """
    problems = pc.value_counts(table["problem"].drop_null()).to_pylist()
    reasons = {str(one["values"]): int(one["counts"]) for one in problems}
    refused = reasons.get(REASON, 0)
    bad = sum(reasons.values()) - refused
    told = {"uids": table.num_rows, "usable": table.num_rows - bad - refused, "bad": bad}
    counts = {**before, **({name: value for name, value in told.items() if name in before})}
    counts.pop(REASON, None)
    return counts | ({REASON: refused} if refused else {}), dict(sorted(reasons.items()))


def _blanked(table: pa.Table, chosen: np.ndarray, kept: tuple[str, ...], told: Mapping[str, str | int]) -> pa.Table:
    """Null in the chosen rows but for the columns that are kept, and those that say why."""
    if not chosen.any():
        return table
    mask = pa.array(chosen)
    columns = []
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if field.name in told:
            column = pc.if_else(mask, pa.scalar(told[field.name], field.type), column)
        elif field.name not in kept:
            column = _without(column, chosen)
        columns.append(column)
    return pa.table(columns, schema=table.schema)


def _without(column: pa.Array, chosen: np.ndarray) -> pa.Array:
    """A column of any type with nulls in the chosen rows; the values themselves are gone, not masked."""
    picked = np.arange(len(column))
    return column.take(pa.array(picked, mask=chosen))
