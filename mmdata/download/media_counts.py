"""Counts a media table: statuses, reasons, and when a failed row may be retried. Used by media stage and takedown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from mmdata.sources.source_rules import is_rule

NOT_FETCHABLE = ("bad_row", "opt_out")
"""Errors of rows that are not fetched at all; rows that a source's filter does not let in are not fetched either."""


def is_fetchable(status: str, error: str | None) -> bool:
    """Whether a row was to be fetched: a rule may also hold back what was fetched before the rule was there."""
    return error not in NOT_FETCHABLE and not (status == "refused" and is_rule(error))


def media_counts(
    table: pa.Table, urls: Mapping[str, str | None]
) -> tuple[dict[str, int], Mapping[str, int], str | None]:
    """Counts by status, counts by error, and when the first retry is due (UTC, ISO 8601; None: there is none).

    `further_rows` and `further_success` count the rows beyond the first of their file, for `freshness.fetched_files`;
    they are missing if there are none.

    Args:
        urls: uid -> URL of the file that the row is cut from; a uid without one has a file of its own.
    """
    uids, row_statuses, row_errors = (table[name].to_pylist() for name in ("uid", "status", "error"))
    statuses, errors = Counter(row_statuses), Counter(error for error in row_errors if error is not None)
    fetchable = sum(is_fetchable(status, error) for status, error in zip(row_statuses, row_errors, strict=True))
    counts = {"rows": table.num_rows, "fetchable": fetchable, **statuses}
    files: set[str] = set()
    good_files: set[str] = set()
    for uid, status, error in zip(uids, row_statuses, row_errors, strict=True):
        if is_fetchable(status, error):
            files.add(urls.get(uid) or uid)
            if status == "success":
                good_files.add(urls.get(uid) or uid)
    if further := fetchable - len(files):
        counts |= {"further_rows": further, "further_success": statuses["success"] - len(good_files)}
    if spoken := table.num_rows - table["synthetic"].null_count:
        counts["spoken"] = spoken
    retry_times = table["next_retry_at"].drop_null().to_pylist()
    return counts, errors, min(retry_times).isoformat() if retry_times else None
