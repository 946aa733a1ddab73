"""Counts a media table: statuses, reasons, and when a failed row may be retried. Used by media stage and takedown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.documents import picture_urls
from mmdata.errors import DataError
from mmdata.sources.source_rules import is_rule
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace

NOT_FETCHABLE = ("bad_row", "opt_out")
"""Errors of rows that are not fetched at all; rows that a source's filter does not let in are not fetched either."""


def is_fetchable(status: str, error: str | None) -> bool:
    """Whether a row was to be fetched: a rule may also hold back what was fetched before the rule was there."""
    return error not in NOT_FETCHABLE and not (status == "refused" and is_rule(error))


def failed_urls(workspace: Workspace, part: str, name: str) -> Iterator[tuple[str, str]]:
    """URL and error class of each fetch of a slice that failed; of a document each of its pictures.

    Raises:
        DataError: a table is missing or damaged, or the two do not have the same uids.
    """
    media = read_table(workspace.table(part, "media", name), ["uid", "error"], ["pictures"])
    of_documents = "pictures" in media.column_names
    rows = read_table(workspace.table(part, "rows", name), ["uid", "url", *(["extra"] if of_documents else [])])
    if rows["uid"] != media["uid"]:
        raise DataError(f"part {part}, slice {name}: media is older than rows. Remedy: `mmdata build`.")
    for at, (url, error) in enumerate(zip(rows["url"].to_pylist(), media["error"].to_pylist(), strict=True)):
        pictures = media["pictures"][at].as_py() if of_documents else None
        if pictures:
            fetches = zip(picture_urls(rows["extra"][at].as_py()), pictures, strict=True)
            yield from ((url, picture["error"]) for url, picture in fetches if picture["error"] is not None)
        elif error is not None:
            yield url or "", error


def media_counts(
    table: pa.Table, urls: Mapping[str, str | None]
) -> tuple[dict[str, int], Mapping[str, int], str | None]:
    """Counts by status, counts by error, and when the first retry is due (UTC, ISO 8601; None: there is none).

    `further_rows` and `further_success` count the rows beyond the first of their file, for `freshness.fetched_files`;
    they are missing if there are none. `pictures` and `pictures_missing` count those of documents.

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
    if "pictures" in table.column_names:
        pictures = pc.list_flatten(table["pictures"])
        counts["pictures"] = len(pictures)
        counts["pictures_missing"] = pc.sum(pc.not_equal(pc.struct_field(pictures, "status"), "success")).as_py() or 0
    retry_times = table["next_retry_at"].drop_null().to_pylist()
    return counts, errors, min(retry_times).isoformat() if retry_times else None
