"""Summarises the named scores of a selection: how each is distributed, and where the rules on it end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mmdata.config import Filter
from mmdata.figures import charts
from mmdata.figures.svg_chart import Chart
from mmdata.select.cuts import Cut
from mmdata.select.filters import REASON
from mmdata.select.top_fractions import top_rules


@dataclass(frozen=True, slots=True)
class NamedScore:
    """A score that the selection's table holds.

    Args:
        values: float32, of the rows that have it.
        threshold: the highest bound from below on it, if there is one; a weighted sum gives none.
    """

    values: np.ndarray
    threshold: float | None


def named_scores(table: pl.LazyFrame, rules: Filter, cuts: Mapping[str, Cut]) -> dict[str, NamedScore]:
    """The named scores of a selection's table.

    Args:
        rules: the filter, its preset resolved.
        cuts: rule -> where its top fraction ended.
    """
    ends = {rule.name: next(iter(rule.weights)) for rule in top_rules(rules) if list(rule.weights.values()) == [1.0]}
    scores = {}
    for column in table.collect_schema().names():
        if column.startswith("score_"):
            name = column.removeprefix("score_")
            bounds = [cuts[rule].score for rule, score in ends.items() if score == name and rule in cuts]
            bounds += [rules.min_scores[name]] if name in rules.min_scores else []
            values = table.select(column).drop_nulls().collect()[column].to_numpy()
            scores[name] = NamedScore(values, max(bounds, default=None))
    return scores


def score_rows(scores: Mapping[str, NamedScore]) -> list[dict[str, Any]]:
    """A small table of the scores, for people."""
    return [
        {
            "score": name,
            "samples": len(score.values),
            "mean": round(float(score.values.mean()), 4) if len(score.values) else None,
            "least that is kept": score.threshold,
        }
        for name, score in scores.items()
    ]


def top_rows(rules: Filter, cuts: Mapping[str, Cut], reasons: Mapping[str, int]) -> list[dict[str, Any]]:
    """A small table of the top fractions, for people."""
    return [
        {
            "rule": rule.name,
            "weights": ", ".join(f"{name} {weight:g}" for name, weight in rule.weights.items()),
            "fraction": rule.fraction,
            "least that is kept": cuts[rule.name].score if rule.name in cuts else None,
            "dropped by it first": reasons.get(f"{REASON}{rule.name}", 0),
        }
        for rule in top_rules(rules)
    ]


def histograms(scores: Mapping[str, NamedScore]) -> dict[str, Chart]:
    """A histogram of each score that any sample has."""
    return {
        name: charts.score_histogram(score.values, score.threshold, f"Scores {name}", name)
        for name, score in scores.items()
        if len(score.values)
    }


def density_rows(table: pl.LazyFrame, top: int) -> list[dict[str, Any]]:
    """The clusters that density-based pruning took most from: samples before and after it."""
    counted = (
        table.filter(pl.col("cluster").is_not_null())
        .filter(pl.col("keep") | pl.col("reason").str.contains("^(density$|balance:)"))
        .group_by("cluster")
        .agg(before=pl.len(), after=(pl.col("reason").fill_null("") != "density").sum())
        .filter(pl.col("before") > pl.col("after"))
        .sort((pl.col("before") - pl.col("after")), "cluster", descending=[True, False])
        .head(top)
        .collect()
    )
    return counted.to_dicts()
