"""The rows table of one slice: source rows with the same uid become one, and opted-out rows lose their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import polars as pl
import pyarrow as pa

from mmdata.engine.part_run import SliceResult
from mmdata.optout.hashes import OptOut
from mmdata.optout.redact import redacted_rows, rows_counts
from mmdata.samples import ROWS, SOURCE_SCORES, source_score
from mmdata.sources.row import Row
from mmdata.workspace.layout import Part


def rows_table(rows: Iterable[Row], part: Part) -> SliceResult:
    """The table of one slice, one row per uid; the column `copies` counts the identical rows that it replaces.

    Counts source rows (`rows`), what they contain (`samples`: a row of a video index contains many clips), uids, usable
    rows and bad rows.
    """
    kept: list[Row] = []
    copies: list[int] = []
    index_by_uid: dict[str, int] = {}
    source_rows = samples = 0
    problems: Counter[str] = Counter()
    for row in rows:
        samples += 1
        source_rows += not row.further
        if row.problem is not None:
            problems[row.problem] += 1
        else:
            index = index_by_uid.setdefault(row.uid, len(kept))
            if index < len(kept):
                copies[index] += 1
                continue
        kept.append(row)
        copies.append(1)
    uids = len(kept)
    columns = dict(zip(Row._fields, zip(*kept, strict=True) if kept else [()] * len(Row._fields), strict=True))
    columns |= {"source": (part.source,) * uids, "part": (part.name,) * uids, "copies": tuple(copies)}
    table = pa.table({name: pa.array(columns[name], ROWS.field(name).type) for name in ROWS.names}, schema=ROWS)
    table = table.sort_by("uid")
    counts = {"rows": source_rows, "samples": samples, "uids": uids, "usable": uids - problems.total()}
    counts |= {"repeated": samples - uids, "bad": problems.total()} | _with_scores(table)
    return SliceResult(table, counts, dict(sorted(problems.items())))


def _with_scores(table: pa.Table) -> dict[str, int]:
    """How many samples have a score of the source that a rule of the selection may read; only those that some have."""
    frame = pl.DataFrame({"extra": pl.Series(values=table["extra"], dtype=pl.String)})
    with_scores = frame.select(source_score(name).is_not_null().sum().alias(name) for name in SOURCE_SCORES).row(0)
    return {f"with_{name}": count for name, count in zip(SOURCE_SCORES, with_scores, strict=True) if count}


def without_opted_out(result: SliceResult, opt_out: OptOut) -> SliceResult:
    """The slice with its opted-out rows emptied: they keep their uid and counts, but no URL and no caption."""
    covered = opt_out.covers_rows(result.table)
    if not covered.any():
        return result
    table = redacted_rows(result.table, covered)
    counts, reasons = rows_counts(result.counts, table)
    return replace(result, table=table, counts=counts, reasons=reasons)
