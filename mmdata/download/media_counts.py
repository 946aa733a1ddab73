"""Counts a media table: statuses, reasons, and when a failed row may be retried. Used by media stage and takedown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

NOT_FETCHABLE = ("bad_row", "opt_out")
"""Errors of rows that are not fetched at all."""


def media_counts(table: pa.Table) -> tuple[dict[str, int], Mapping[str, int], str | None]:
    """Counts by status, counts by error, and when the first retry is due (UTC, ISO 8601; None: there is none)."""
    statuses, errors = Counter(table["status"].to_pylist()), Counter(table["error"].drop_null().to_pylist())
    fetchable = table.num_rows - sum(errors[error] for error in NOT_FETCHABLE)
    counts = {"rows": table.num_rows, "fetchable": fetchable, **statuses}
    if spoken := table.num_rows - table["synthetic"].null_count:
        counts["spoken"] = spoken
    retry_times = table["next_retry_at"].drop_null().to_pylist()
    return counts, errors, min(retry_times).isoformat() if retry_times else None
