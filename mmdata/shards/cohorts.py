"""Which shard a sample goes to: cohorts of parts, hashed buckets, and an order in which copies never meet.

A cohort is the parts that were first released together, at most 64. Its samples stay in its shards, and its number of
buckets stays while it fits. New parts go into new cohorts; a changed decision about a sample rewrites one bucket.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from mmdata.samples import hash64

MAX_PARTS = 64
SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Cohort:
    """Parts that share shards.

    Args:
        name: `c0000`, counted from the first release on.
        buckets: split -> number of shards; empty until the first release has been sized.
    """

    name: str
    parts: tuple[str, ...]
    buckets: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "parts": list(self.parts), "buckets": dict(self.buckets)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cohort:
        return cls(data["name"], tuple(data["parts"]), data["buckets"])


def assign_cohorts(parts: Sequence[str], parent: Sequence[Cohort]) -> list[Cohort]:
    """Keep the cohorts of the parent, and put new parts, sorted, into new cohorts of at most 64."""
    placed_parts = {part for cohort in parent for part in cohort.parts}
    new = sorted(set(parts) - placed_parts)
    cohorts = list(parent)
    for first in range(0, len(new), MAX_PARTS):
        cohorts.append(Cohort(f"c{len(cohorts):04d}", tuple(new[first : first + MAX_PARTS]), {}))
    return cohorts


def bucket_count(total_bytes: int, shard_mb: float) -> int:
    """Number of shards of about `shard_mb` megabytes (10^6 bytes) that hold `total_bytes`; at least one."""
    return max(1, math.ceil(total_bytes / (shard_mb * 1e6)))


def kept_buckets(current: int | None, total_bytes: int, shard_mb: float) -> int:
    """The number of buckets of the last release, unless shards would be under half or over twice `shard_mb`.

    The same number keeps the shards. But after a filter is relaxed, a cohort may hold twenty times its first bytes.
    """
    wanted = bucket_count(total_bytes, shard_mb)
    return current if current is not None and wanted / 2 <= current <= 2 * wanted else wanted


def place(samples: pl.DataFrame, buckets: int, seed: int, cohort: str) -> pl.DataFrame:
    """Give each sample its bucket, and put each bucket in order.

    Args:
        samples: has `uid` and `copy` (0 for the first); other columns are carried along.

    Returns:
        The samples with `bucket` (int32), sorted by bucket and, within it, by hash. Copy r of a sample stands r buckets
        further than the first, so that copies share a bucket only when there are more copies than buckets; those are
        never adjacent unless the bucket holds nothing to put between.
    """
    home = hash64(samples["uid"], seed, f"bucket {cohort}") % np.uint64(buckets)
    bucket = (home + samples["copy"].to_numpy().astype(np.uint64)) % np.uint64(buckets)
    order = np.zeros(len(samples), np.uint64)
    copies = samples["copy"].to_numpy()
    for copy in np.unique(copies):
        chosen = copies == copy
        order[chosen] = hash64(samples["uid"].filter(pl.Series(chosen)), seed, f"order {cohort} {copy}")
    placed = samples.with_columns(pl.Series("bucket", bucket, dtype=pl.Int32), pl.Series("_order", order))
    placed = placed.sort("bucket", "_order", "uid", "copy")
    if buckets >= int(copies.max(initial=0)) + 1:
        return placed.drop("_order")
    by_bucket = placed.partition_by("bucket", maintain_order=True)
    parts = [rows[separated(rows["uid"].to_list())] for rows in by_bucket]
    return pl.concat(parts).drop("_order") if parts else placed.drop("_order")


def separated(uids: Sequence[str]) -> list[int]:
    """Positions reordered so that equal uids are not adjacent, with as few moves as possible.

    If no later sample can stand between a pair, one of the pair moves to an earlier place; if there is none, it stays.
    """
    waiting = list(range(len(uids)))
    out: list[int] = []
    while waiting:
        last = uids[out[-1]] if out else None
        pick = next((i for i, position in enumerate(waiting) if uids[position] != last), None)
        if pick is not None:
            out.append(waiting.pop(pick))
            continue
        position = waiting.pop(0)
        gaps = range(len(out) - 1, -1, -1)
        uid = uids[position]
        gap = next((g for g in gaps if uids[out[g]] != uid and (g == 0 or uids[out[g - 1]] != uid)), len(out))
        out.insert(gap, position)
    return out
