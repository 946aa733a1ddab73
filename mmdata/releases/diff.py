"""Compares two releases: samples, copies, the mix, the scores, the shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import polars as pl

from mmdata.errors import DataError
from mmdata.releases.manifest import Release
from mmdata.storage.tables import read_table, scan_tables
from mmdata.urls import host_name_expr, registrable_domain
from mmdata.workspace.layout import PartStage, Workspace

FIELDS = ("signature", "source", "domain", "language", "concept")
SCORE_BINS = 20
MIN_BIN_SHARE = 1e-4  # keeps the stability index finite where a bin is empty
UNKNOWN = "unknown"

_COLUMNS = ["uid", "part", "slice", "signature", "clip_score", "keep", "reason", "concept", "repeats"]


@dataclass(frozen=True, slots=True)
class Shift:
    """How many samples have a name in each of two releases.

    Args:
        name: of a signature, source, registrable domain, language or concept.
        before, after: samples, copies counted.
        share_before, share_after: the same as fractions of the samples that have any name of the field.
    """

    name: str
    before: int
    after: int
    share_before: float
    share_after: float

    @property
    def change(self) -> float:
        return self.share_after - self.share_before


@dataclass(frozen=True, slots=True)
class Scores:
    """CLIP scores of the distinct samples.

    Args:
        mean_before, mean_after: None without scores.
        stability: population stability index, over bins that each hold a twentieth of the earlier scores: 0 for equal
            distributions, over 0.25 for another population; None unless both releases have scores.
        edges, before, after: histograms of both over the same bins; N+1 edges, N counts each.
    """

    mean_before: float | None
    mean_after: float | None
    stability: float | None
    edges: tuple[float, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Diff:
    """Two releases side by side.

    Args:
        before, after: release ids.
        counts: samples_before, samples_after (distinct), added, dropped, stayed, copies_before, copies_after,
            repeats_up, repeats_down (of those that stayed), shards_reused, shards_new, bytes_new, bytes.
        added: why samples were not in the earlier release -> count: `new row`, or `was dropped: <reason>`.
        dropped: why samples are not in the later release -> count: the reason, or that their row or part is gone.
        mix: field -> its names, the largest change of share first.
    """

    before: str
    after: str
    counts: Mapping[str, int]
    added: Mapping[str, int]
    dropped: Mapping[str, int]
    mix: Mapping[str, tuple[Shift, ...]]
    scores: Scores

    def to_json(self, max_names: int | None = None) -> Changes:
        """Plain values for JSON; of each field of the mix the first `max_names` only (None: all)."""
        values = asdict(self)
        values["mix"] = {field: [asdict(shift) for shift in shifts[:max_names]] for field, shifts in self.mix.items()}
        return cast("Changes", values)


class Changes(TypedDict):
    """A `Diff` as JSON; in `changes.json` of a release also the changes that exceed a limit, one line each."""

    before: str
    after: str
    counts: dict[str, int]
    added: dict[str, int]
    dropped: dict[str, int]
    mix: dict[str, list[dict[str, Any]]]
    scores: dict[str, Any]
    sudden: NotRequired[list[str]]


def diff_releases(before: Release, after: Release) -> Diff:
    """Compare two releases, of one workspace or of two.

    Domains and languages are read from the tables of the parts, and count only samples whose rows are still there.

    Raises:
        DataError: a release's selection is damaged or gone.
    """
    old, new = _selection(before), _selection(after)
    joined = old.select("uid", "part", "keep", "reason", "repeats").join(
        new.select("uid", "keep", "reason", "repeats"), on="uid", how="full", coalesce=True, suffix="_new"
    )
    was_kept, is_kept = pl.col("keep").fill_null(False), pl.col("keep_new").fill_null(False)
    totals = joined.select(
        samples_before=was_kept.sum(),
        samples_after=is_kept.sum(),
        added=(is_kept & ~was_kept).sum(),
        dropped=(was_kept & ~is_kept).sum(),
        stayed=(was_kept & is_kept).sum(),
        copies_before=pl.col("repeats").cast(pl.Int64).sum(),
        copies_after=pl.col("repeats_new").cast(pl.Int64).sum(),
        repeats_up=(was_kept & is_kept & (pl.col("repeats_new") > pl.col("repeats"))).sum(),
        repeats_down=(was_kept & is_kept & (pl.col("repeats_new") < pl.col("repeats"))).sum(),
    ).collect(engine="streaming")
    counts = {name: int(value or 0) for name, value in totals.row(0, named=True).items()}
    why_added = (
        pl.when(pl.col("keep").is_null())
        .then(pl.lit("new row"))
        .otherwise(pl.format("was dropped: {}", pl.col("reason").fill_null(UNKNOWN)))
    )
    part_is_released = pl.col("part").is_in(list(after.manifest["parts"]))
    gone = pl.when(part_is_released).then(pl.lit("its row is gone")).otherwise(pl.lit("its part is gone"))
    why_dropped = pl.when(pl.col("keep_new").is_null()).then(gone).otherwise(pl.col("reason_new").fill_null(UNKNOWN))
    mix_before, mix_after = _mix(before, old), _mix(after, new)
    return Diff(
        before.id,
        after.id,
        counts | _shard_counts(before, after),
        _count_reasons(joined.filter(is_kept & ~was_kept).select(why_added.alias("why"))),
        _count_reasons(joined.filter(was_kept & ~is_kept).select(why_dropped.alias("why"))),
        {field: _shifts(mix_before[field], mix_after[field]) for field in FIELDS},
        compare_scores(_scores(old), _scores(new)),
    )


def compare_scores(before: np.ndarray, after: np.ndarray) -> Scores:
    """Compare two arrays of finite scores: float, shapes (N,) and (M,), either may be empty."""
    mean_before, mean_after = (float(scores.mean()) if len(scores) else None for scores in (before, after))
    if not len(before) or not len(after):
        return Scores(mean_before, mean_after, None)
    cuts = np.unique(np.quantile(before, np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
    old, new = (
        np.maximum(np.bincount(np.searchsorted(cuts, scores), minlength=len(cuts) + 1) / len(scores), MIN_BIN_SHARE)
        for scores in (before, after)
    )
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    edges = np.linspace(low, high if high > low else low + 1, SCORE_BINS + 1)
    counts_before, counts_after = (tuple(np.histogram(scores, edges)[0].tolist()) for scores in (before, after))
    stability = float(((new - old) * np.log(new / old)).sum())
    return Scores(mean_before, mean_after, stability, tuple(edges.tolist()), counts_before, counts_after)


def _selection(release: Release) -> pl.LazyFrame:
    path = release.folder / "selection.parquet"
    if not path.exists():
        raise DataError(f"{path} is not there. Remedy: compare another release.")
    return scan_tables([path], _COLUMNS)


def _count_reasons(reasons: pl.LazyFrame) -> dict[str, int]:
    counted = reasons.group_by("why").len().sort("len", "why", descending=[True, False]).collect(engine="streaming")
    return {str(why): int(count) for why, count in counted.iter_rows()}


def _scores(table: pl.LazyFrame) -> np.ndarray:
    finite = table.filter("keep", pl.col("clip_score").is_finite()).select("clip_score")
    return finite.collect(engine="streaming")["clip_score"].to_numpy()


def _shard_counts(before: Release, after: Release) -> dict[str, int]:
    reusable = {shard["name"] for shard in before.manifest["shards"]}
    new = [shard for shard in after.manifest["shards"] if shard["name"] not in reusable]
    return {
        "shards_reused": len(after.manifest["shards"]) - len(new),
        "shards_new": len(new),
        "bytes_new": sum(shard["bytes"] for shard in new),
        "bytes": sum(shard["bytes"] for shard in after.manifest["shards"]),
    }


def _mix(release: Release, table: pl.LazyFrame) -> dict[str, dict[str, int]]:
    """Field -> name -> samples, copies counted."""
    kept = table.filter("keep").with_columns(source=pl.col("part").str.extract(r"^(.*)-\d+$", 1).fill_null("part"))
    mix = {field: _sum_copies(kept, field) for field in ("signature", "source", "concept")}
    return mix | _domains_and_languages(release.workspace, kept)


def _sum_copies(table: pl.LazyFrame, column: str) -> dict[str, int]:
    grouped = table.drop_nulls(column).group_by(column).agg(pl.col("repeats").cast(pl.Int64).sum())
    return {str(name): int(count) for name, count in grouped.collect(engine="streaming").iter_rows()}


def _domains_and_languages(workspace: Workspace, kept: pl.LazyFrame) -> dict[str, dict[str, int]]:
    # slice by slice, because the URLs of a whole release may not fit in memory
    totals: dict[str, dict[str, int]] = {"domain": {}, "language": {}}
    part_slices = kept.select("part", "slice").unique().sort("part", "slice").collect(engine="streaming")
    for (part,), slices in part_slices.group_by("part", maintain_order=True):
        of_part = kept.filter(pl.col("part") == part).select("uid", "slice", "repeats").collect(engine="streaming")
        for name in slices["slice"]:
            rows = of_part.filter(pl.col("slice") == name)
            rows = rows.join(_column(workspace, str(part), "rows", name, "url"), on="uid", how="left")
            rows = rows.join(_column(workspace, str(part), "features", name, "lang"), on="uid", how="left")
            named = rows.select("repeats", domain=registrable_domain(host_name_expr(pl.col("url"))), language="lang")
            for field, counts in totals.items():
                for key, count in _sum_copies(named.lazy(), field).items():
                    counts[key] = counts.get(key, 0) + count
    return totals


def _column(workspace: Workspace, part: str, stage: PartStage, slice_name: str, column: str) -> pl.DataFrame:
    """The uid and one other column of a slice's table; without rows if the table is gone."""
    path = workspace.table(part, stage, slice_name)
    if not path.exists():
        return pl.DataFrame(schema={"uid": pl.String, column: pl.String})
    return pl.DataFrame(read_table(path, ["uid", column])).unique("uid")


def _shifts(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[Shift, ...]:
    total_before, total_after = max(1, sum(before.values())), max(1, sum(after.values()))
    counts = [(name, before.get(name, 0), after.get(name, 0)) for name in before.keys() | after.keys()]
    shifts = [Shift(name, old, new, old / total_before, new / total_after) for name, old, new in counts]
    return tuple(sorted(shifts, key=lambda shift: (-abs(shift.change), shift.name)))
