"""What a media table comes to: counts, reasons, and when something of it is due again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

NOT_FETCHABLE = ("bad_row", "opt_out")
"""Errors of rows that are not asked for at all."""


def media_counts(table: pa.Table) -> tuple[dict[str, int], Mapping[str, int], str | None]:
    """Counts by status, reasons by error, and the first time of a retry (UTC ISO; None: there is none)."""
    statuses, errors = Counter(table["status"].to_pylist()), Counter(table["error"].drop_null().to_pylist())
    asked = table.num_rows - sum(errors[error] for error in NOT_FETCHABLE)
    counts = {"rows": table.num_rows, "fetchable": asked, **statuses}
    if made := table.num_rows - table["synthetic"].null_count:
        counts["spoken"] = made
    retries = [due for due in table["next_retry_at"].to_pylist() if due is not None]
    return counts, errors, min(retries).isoformat() if retries else None
