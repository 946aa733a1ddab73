"""The hosts with the most failed downloads, counted from the rows and media tables slice by slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mmdata.download.media_counts import failed_urls
from mmdata.errors import DataError
from mmdata.inspect.progress import spread
from mmdata.urls import host_and_port_expr
from mmdata.workspace.layout import Workspace

MAX_SLICES = 1_000
MAX_PAIRS = 200_000  # of host and error kept in memory; beyond that the rarest are dropped


@dataclass(frozen=True, slots=True)
class FailingHosts:
    """The hosts with the most failures.

    Args:
        hosts: host, error class, rows; the most rows first.
        looked_at, slices: number of slices that were read, and of all slices.
        unreadable: slices whose tables could not be read, or do not match each other.
    """

    hosts: Sequence[tuple[str, str, int]]
    looked_at: int
    slices: int
    unreadable: int


def failing_hosts(
    workspace: Workspace, slices: Sequence[tuple[str, str]], limit: int, most: int = MAX_SLICES
) -> FailingHosts:
    """Count the failures of each host and error class.

    Args:
        slices: part and name of each slice that has media.
        limit: how many hosts and errors to return.
        most: how many slices to read at most, spread evenly over all of them.
    """
    chosen = spread(slices, most)
    counted: Counter[tuple[str, str]] = Counter()
    unreadable = 0
    for part, name in chosen:
        try:
            counted.update(slice_failures(workspace, part, name))
        except (DataError, OSError):
            unreadable += 1
        if len(counted) > MAX_PAIRS:
            counted = Counter(dict(counted.most_common(MAX_PAIRS // 2)))
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:limit]
    hosts = [(host, error, rows) for (host, error), rows in ordered]
    return FailingHosts(hosts, len(chosen), len(slices), unreadable)


def slice_failures(workspace: Workspace, part: str, name: str) -> dict[tuple[str, str], int]:
    """(host, error) -> rows of one slice. Raises DataError if a table is missing, or the tables do not match."""
    failed = pl.DataFrame(
        list(failed_urls(workspace, part, name)), {"url": pl.String, "error": pl.String}, orient="row"
    )
    counts = (
        failed.filter(pl.col("error") != "bad_row")
        .group_by(host_and_port_expr(pl.col("url")).fill_null("").alias("host"), "error")
        .len()
    )
    return {(host, error): count for host, error, count in counts.iter_rows()}
