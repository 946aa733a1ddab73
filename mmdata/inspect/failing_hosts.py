"""Which hosts fail most, and of what: from the rows and media tables, a slice at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mmdata.errors import DataError
from mmdata.storage.tables import read_table
from mmdata.urls import host_and_port_expr
from mmdata.workspace.layout import Workspace

SAMPLED_SLICES = 1_000
MOST_PAIRS = 200_000  # of host and error held at once; beyond it the rarest go, which are no top hosts


@dataclass(frozen=True, slots=True)
class FailingHosts:
    """The hosts with the most failures.

    Args:
        hosts: host, error class, rows; the most rows first.
        looked_at, slices: how many slices were read, of how many there are.
        unreadable: slices whose tables could not be read, or do not belong together.
    """

    hosts: Sequence[tuple[str, str, int]]
    looked_at: int
    slices: int
    unreadable: int


def failing_hosts(
    workspace: Workspace, slices: Sequence[tuple[str, str]], limit: int, most: int = SAMPLED_SLICES
) -> FailingHosts:
    """Count the failures of each host and error class.

    Args:
        slices: part and slice of all that have media.
        limit: how many hosts and errors to name.
        most: slices that are read; of more, so many are taken, spread evenly.
    """
    chosen = [slices[number * len(slices) // min(most, len(slices))] for number in range(min(most, len(slices)))]
    counted: Counter[tuple[str, str]] = Counter()
    unreadable = 0
    for part, name in chosen:
        try:
            counted.update(slice_failures(workspace, part, name))
        except (DataError, OSError):
            unreadable += 1
        if len(counted) > MOST_PAIRS:
            counted = Counter(dict(counted.most_common(MOST_PAIRS // 2)))
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:limit]
    hosts = [(host, error, rows) for (host, error), rows in ordered]
    return FailingHosts(hosts, len(chosen), len(slices), unreadable)


def slice_failures(workspace: Workspace, part: str, name: str) -> dict[tuple[str, str], int]:
    """(host, error) -> rows of one slice. Raises DataError where a table is missing or is another slice's."""
    rows = pl.DataFrame(read_table(workspace.table(part, "rows", name), ["uid", "url"]))
    media = pl.DataFrame(read_table(workspace.table(part, "media", name), ["uid", "error"]))
    if not rows["uid"].equals(media["uid"]):
        raise DataError(f"part {part}, slice {name}: media is older than rows. Remedy: `mmdata build`.")
    found = (
        pl.DataFrame({"url": rows["url"], "error": media["error"]})
        .filter(pl.col("error").is_not_null() & (pl.col("error") != "bad_row"))
        .group_by(host_and_port_expr(pl.col("url")).fill_null("").alias("host"), "error")
        .len()
    )
    return {(host, error): count for host, error, count in found.iter_rows()}
