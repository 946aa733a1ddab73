"""Summarises a selection from its table: counts, reasons, tables of before and after, and charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Filter
from mmdata.figures import charts
from mmdata.figures.svg_chart import Chart
from mmdata.select.presets import resolve
from mmdata.select.rates import read_cut_score
from mmdata.storage.tables import scan_tables

TOP_CONCEPTS = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a selection.

    "Before" is what passed filters and dedup, that is, what balancing began with; "after" counts repeats.

    Args:
        counts: rows (source rows), uids, kept, dropped, repeats (samples of the release, copies included), validation.
        reasons: reason -> uids dropped.
        signatures: signature -> (before, after).
        concepts: concept -> (before, after), most frequent before first.
        threshold: CLIP score that a kept sample has at least; None without a score rule.
        scores: float32, the finite scores.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    signatures: dict[str, tuple[int, int]]
    concepts: dict[str, tuple[int, int]]
    threshold: float | None
    scores: np.ndarray

    def numbers(self) -> dict[str, float]:
        """Shares and the score threshold."""
        uids = max(self.counts["uids"], 1)
        values = {"kept_share": self.counts["kept"] / uids, "repeat_factor": self._ratio("repeats", "kept")}
        if self.threshold is not None:
            values["clip_score_threshold"] = self.threshold
        return values

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Small tables for people."""
        top = list(self.concepts.items())[:TOP_CONCEPTS]
        return {
            "signatures": [{"signature": k, "before": b, "after": a} for k, (b, a) in self.signatures.items()],
            "top concepts": [{"concept": k, "before": b, "after": a} for k, (b, a) in top],
        }

    def images(self, scorer: str) -> dict[str, bytes]:
        """Score histogram (of what `scorer` gave), modalities and long tail, as SVG."""
        drawn = {}
        if len(self.scores):
            title = f"All scores by {scorer}"
            drawn["scores"] = charts.score_histogram(self.scores, self.threshold, title).picture()
        if self.signatures:
            before = {name: pair[0] for name, pair in self.signatures.items()}
            after = {name: pair[1] for name, pair in self.signatures.items()}
            drawn["modalities"] = charts.before_after_bars(before, after, "Samples by modality").picture()
        if self.concepts:
            drawn["long tail"] = self.long_tail().picture()
        return drawn

    def long_tail(self) -> Chart:
        """Samples of each concept, before and after."""
        before, after = zip(*self.concepts.values(), strict=True) if self.concepts else ((), ())
        return charts.long_tail(before, after, "Samples by concept")

    def _ratio(self, part: str, whole: str) -> float:
        return self.counts[part] / max(self.counts[whole], 1)


def summarise(folder: UPath, rules: Filter) -> Summary:
    """Read the figures of a release's selection, a few columns at a time.

    Args:
        folder: of the release: selection.parquet, and rates.json for the score at which a top fraction ends.
    """
    table = scan_tables([folder / "selection.parquet"])
    min_score = resolve(rules).min_clip_score
    totals = table.select(
        rows=pl.col("copies").cast(pl.Int64).sum(),
        uids=pl.len(),
        kept=pl.col("keep").sum(),
        dropped=(~pl.col("keep")).sum(),
        repeats=pl.col("repeats").cast(pl.Int64).sum(),
        validation=(pl.col("split") == "validation").sum(),
    ).collect(engine="streaming")
    counts = {name: int(value or 0) for name, value in totals.row(0, named=True).items()}
    dropped = table.filter(~pl.col("keep")).group_by("reason").len().sort("reason").collect(engine="streaming")
    return Summary(
        counts,
        {str(reason): int(rows) for reason, rows in dropped.iter_rows()},
        _before_after(table, "signature"),
        _before_after(table, "concept"),
        read_cut_score(folder / "rates.json") if min_score is None else min_score,
        table.select("clip_score").filter(pl.col("clip_score").is_finite()).collect()["clip_score"].to_numpy(),
    )


def _before_after(table: pl.LazyFrame, column: str) -> dict[str, tuple[int, int]]:
    counted = (
        table.filter(pl.col("keep") | pl.col("reason").str.starts_with("balance:"))
        .filter(pl.col(column).is_not_null())
        .group_by(column)
        .agg(pl.len().alias("before"), pl.col("repeats").cast(pl.Int64).sum().alias("after"))
        .sort(["before", column], descending=[True, False])
        .collect(engine="streaming")
    )
    return {str(name): (int(before), int(after)) for name, before, after in counted.iter_rows()}
