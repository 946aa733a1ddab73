"""What is different between two releases: samples, copies, the mix, the scores, the shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from mmdata.errors import DataError
from mmdata.releases.manifest import Release
from mmdata.storage.tables import read_table, scan_tables
from mmdata.urls import host_name_expr, registrable_domain
from mmdata.workspace.layout import PartStage, Workspace

FIELDS = ("signature", "source", "domain", "language", "concept")
SCORE_BINS = 20
LEAST_SHARE = 1e-4  # of a bin, so that the index of stability stays finite
UNKNOWN = "unknown"

_COLUMNS = ["uid", "part", "slice", "signature", "clip_score", "keep", "reason", "concept", "repeats"]


@dataclass(frozen=True, slots=True)
class Shift:
    """How much of a release one name makes up, copies counted.

    Args:
        name: of a signature, source, registrable domain, language or concept.
        before, after: samples.
        share_before, share_after: of all samples that have a name.
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
        stability: population stability index over twentieths of the earlier release: 0 the same, over 0.25 another
            population; None without scores in both.
        edges, before, after: a histogram over both, counts by bin.
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
        added: why it was not there before -> samples: `new row`, or `was dropped: <reason>`.
        dropped: why it is not there any more -> samples: the reason, or that its row or part is gone.
        mix: field -> its names, the largest change of share first.
    """

    before: str
    after: str
    counts: Mapping[str, int]
    added: Mapping[str, int]
    dropped: Mapping[str, int]
    mix: Mapping[str, tuple[Shift, ...]]
    scores: Scores

    def to_json(self, names: int | None = None) -> dict[str, Any]:
        """As JSON; of each field of the mix the first `names` only."""
        told = asdict(self)
        told["mix"] = {field: [asdict(one) for one in shifts[:names]] for field, shifts in self.mix.items()}
        return told


def diff_releases(before: Release, after: Release) -> Diff:
    """Compare two releases, of one workspace or of two.

    Domains and languages are read from the tables of the parts; samples whose row is gone from them are not counted
    there.

    Raises:
        DataError: a release's selection is damaged or gone.
    """
    old, new = _selection(before), _selection(after)
    joined = old.select("uid", "part", "keep", "reason", "repeats").join(
        new.select("uid", "keep", "reason", "repeats"), on="uid", how="full", coalesce=True, suffix="_new"
    )
    was, is_now = pl.col("keep").fill_null(False), pl.col("keep_new").fill_null(False)
    totals = joined.select(
        samples_before=was.sum(),
        samples_after=is_now.sum(),
        added=(is_now & ~was).sum(),
        dropped=(was & ~is_now).sum(),
        stayed=(was & is_now).sum(),
        copies_before=pl.col("repeats").cast(pl.Int64).sum(),
        copies_after=pl.col("repeats_new").cast(pl.Int64).sum(),
        repeats_up=(was & is_now & (pl.col("repeats_new") > pl.col("repeats"))).sum(),
        repeats_down=(was & is_now & (pl.col("repeats_new") < pl.col("repeats"))).sum(),
    ).collect(engine="streaming")
    counts = {name: int(value or 0) for name, value in totals.row(0, named=True).items()}
    came = (
        pl.when(pl.col("keep").is_null())
        .then(pl.lit("new row"))
        .otherwise(pl.format("was dropped: {}", pl.col("reason").fill_null(UNKNOWN)))
    )
    kept_parts = pl.col("part").is_in(list(after.manifest["parts"]))
    gone = pl.when(kept_parts).then(pl.lit("its row is gone")).otherwise(pl.lit("its part is gone"))
    went = pl.when(pl.col("keep_new").is_null()).then(gone).otherwise(pl.col("reason_new").fill_null(UNKNOWN))
    mixes = _mix(before, old), _mix(after, new)
    return Diff(
        before.id,
        after.id,
        counts | _shards(before, after),
        _counted(joined.filter(is_now & ~was).select(came.alias("why"))),
        _counted(joined.filter(was & ~is_now).select(went.alias("why"))),
        {field: _shifts(mixes[0][field], mixes[1][field]) for field in FIELDS},
        compare_scores(_scores(old), _scores(new)),
    )


def compare_scores(before: np.ndarray, after: np.ndarray) -> Scores:
    """Compare two sets of finite scores (float, any length)."""
    mean_before, mean_after = (float(one.mean()) if len(one) else None for one in (before, after))
    if not len(before) or not len(after):
        return Scores(mean_before, mean_after, None)
    cuts = np.unique(np.quantile(before, np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
    shares = [np.bincount(np.searchsorted(cuts, one), minlength=len(cuts) + 1) / len(one) for one in (before, after)]
    old, new = (np.maximum(share, LEAST_SHARE) for share in shares)
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    edges = np.linspace(low, high if high > low else low + 1, SCORE_BINS + 1)
    drawn_before, drawn_after = (tuple(np.histogram(one, edges)[0].tolist()) for one in (before, after))
    stability = float(((new - old) * np.log(new / old)).sum())
    return Scores(mean_before, mean_after, stability, tuple(edges.tolist()), drawn_before, drawn_after)


def _selection(release: Release) -> pl.LazyFrame:
    path = release.folder / "selection.parquet"
    if not path.exists():
        raise DataError(f"{path} is not there. Remedy: compare another release.")
    return scan_tables([path], _COLUMNS)


def _counted(reasons: pl.LazyFrame) -> dict[str, int]:
    counted = reasons.group_by("why").len().sort("len", "why", descending=[True, False]).collect(engine="streaming")
    return {str(why): int(count) for why, count in counted.iter_rows()}


def _scores(table: pl.LazyFrame) -> np.ndarray:
    finite = table.filter("keep", pl.col("clip_score").is_finite()).select("clip_score")
    return finite.collect(engine="streaming")["clip_score"].to_numpy()


def _shards(before: Release, after: Release) -> dict[str, int]:
    known = {shard["name"] for shard in before.manifest["shards"]}
    new = [shard for shard in after.manifest["shards"] if shard["name"] not in known]
    return {
        "shards_reused": len(after.manifest["shards"]) - len(new),
        "shards_new": len(new),
        "bytes_new": sum(shard["bytes"] for shard in new),
        "bytes": sum(shard["bytes"] for shard in after.manifest["shards"]),
    }


def _mix(release: Release, table: pl.LazyFrame) -> dict[str, dict[str, int]]:
    """Field -> name -> samples, copies counted."""
    kept = table.filter("keep").with_columns(source=pl.col("part").str.extract(r"^(.*)-\d+$", 1).fill_null("part"))
    found = {field: _summed(kept, field) for field in ("signature", "source", "concept")}
    return found | _origins(release.workspace, kept)


def _summed(table: pl.LazyFrame, column: str) -> dict[str, int]:
    grouped = table.drop_nulls(column).group_by(column).agg(pl.col("repeats").cast(pl.Int64).sum())
    return {str(name): int(count) for name, count in grouped.collect(engine="streaming").iter_rows()}


def _origins(workspace: Workspace, kept: pl.LazyFrame) -> dict[str, dict[str, int]]:
    """Domains and languages, a slice at a time: URLs are long, and there may be many."""
    totals: dict[str, dict[str, int]] = {"domain": {}, "language": {}}
    places = kept.select("part", "slice").unique().sort("part", "slice").collect(engine="streaming")
    for (part,), slices in places.group_by("part", maintain_order=True):
        mine = kept.filter(pl.col("part") == part).select("uid", "slice", "repeats").collect(engine="streaming")
        for name in slices["slice"]:
            own = mine.filter(pl.col("slice") == name)
            own = own.join(_column(workspace, str(part), "rows", name, "url"), on="uid", how="left")
            own = own.join(_column(workspace, str(part), "features", name, "lang"), on="uid", how="left")
            named = own.select("repeats", domain=registrable_domain(host_name_expr(pl.col("url"))), language="lang")
            for field, counts in totals.items():
                for key, count in _summed(named.lazy(), field).items():
                    counts[key] = counts.get(key, 0) + count
    return totals


def _column(workspace: Workspace, part: str, stage: PartStage, slice_name: str, column: str) -> pl.DataFrame:
    """A column of a slice's table by uid; of no rows where the table has gone since."""
    path = workspace.table(part, stage, slice_name)
    if not path.exists():
        return pl.DataFrame(schema={"uid": pl.String, column: pl.String})
    return pl.DataFrame(read_table(path, ["uid", column])).unique("uid")


def _shifts(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[Shift, ...]:
    all_before, all_after = max(1, sum(before.values())), max(1, sum(after.values()))
    shifts = [
        Shift(name, b := before.get(name, 0), a := after.get(name, 0), b / all_before, a / all_after)
        for name in before.keys() | after.keys()
    ]
    return tuple(sorted(shifts, key=lambda one: (-abs(one.change), one.name)))
