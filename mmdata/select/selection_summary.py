"""Summarises a selection from its table: counts, reasons, tables of before and after, and charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Filter
from mmdata.config.presets import resolve
from mmdata.figures import charts
from mmdata.figures.svg_chart import Chart
from mmdata.select.density import PRUNED
from mmdata.select.rates import read_lasting
from mmdata.select.score_summary import NamedScore, density_rows, histograms, named_scores, score_rows, top_rows
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
        named: name -> a score beside the cosine.
        further: small tables of the rules on scores and clusters.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    signatures: dict[str, tuple[int, int]]
    concepts: dict[str, tuple[int, int]]
    threshold: float | None
    scores: np.ndarray
    named: Mapping[str, NamedScore] = field(default_factory=dict)
    further: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Shares and the score threshold."""
        uids = max(self.counts["uids"], 1)
        values = {"kept_share": self.counts["kept"] / uids, "repeat_factor": self._ratio("repeats", "kept")}
        if self.threshold is not None:
            values["clip_score_threshold"] = self.threshold
        bounds = {name: score.threshold for name, score in self.named.items()}
        return values | {f"{name}_threshold": bound for name, bound in bounds.items() if bound is not None}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Small tables for people."""
        top = list(self.concepts.items())[:TOP_CONCEPTS]
        return {
            "signatures": [{"signature": k, "before": b, "after": a} for k, (b, a) in self.signatures.items()],
            "top concepts": [{"concept": k, "before": b, "after": a} for k, (b, a) in top],
            **self.further,
        }

    def images(self, scorer: str) -> dict[str, bytes]:
        """Score histogram (of what `scorer` gave), modalities and long tail, as SVG."""
        drawn = {}
        if len(self.scores):
            title = f"All scores by {scorer}"
            drawn["scores"] = charts.score_histogram(self.scores, self.threshold, title).picture()
        drawn |= {f"score {name}": chart.picture() for name, chart in histograms(self.named).items()}
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
    rules = resolve(rules)
    min_score = rules.min_scores.get("clip_score", rules.min_clip_score)
    cuts = read_lasting(folder / "rates.json", "").cuts
    cut_score = max((cuts[name].score for name in ("top_fraction", "top:clip_score") if name in cuts), default=None)
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
    reasons = {str(reason): int(rows) for reason, rows in dropped.iter_rows()}
    named = named_scores(table, rules, cuts)
    tables = {"scores": score_rows(named), "top fractions": top_rows(rules, cuts, reasons) if rules.top else []}
    if PRUNED in reasons:
        tables["pruned clusters"] = density_rows(table, TOP_CONCEPTS)
    return Summary(
        counts,
        reasons,
        _before_after(table, "signature"),
        _before_after(table, "concept"),
        cut_score if min_score is None else min_score,
        table.select("clip_score").filter(pl.col("clip_score").is_finite()).collect()["clip_score"].to_numpy(),
        named,
        {name: rows for name, rows in tables.items() if rows},
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
