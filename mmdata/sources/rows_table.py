"""The rows table of one slice: source rows with the same uid become one, and opted-out rows lose their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from mmdata.engine.part_run import SliceResult
from mmdata.optout.hashes import OptOut
from mmdata.optout.redact import redacted_rows, rows_counts
from mmdata.samples import ROWS
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
    counts |= {"repeated": samples - uids, "bad": problems.total()}
    return SliceResult(table, counts, dict(sorted(problems.items())))


def without_opted_out(result: SliceResult, opt_out: OptOut) -> SliceResult:
    """The slice with its opted-out rows emptied: they keep their uid and counts, but no URL and no caption."""
    covered = opt_out.covers_rows(result.table)
    if not covered.any():
        return result
    table = redacted_rows(result.table, covered)
    counts, reasons = rows_counts(result.counts, table)
    return replace(result, table=table, counts=counts, reasons=reasons)
