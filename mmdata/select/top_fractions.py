"""Keeps the best share of all scored rows, by the cosine, a named score, or a weighted sum of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mmdata.config import Filter
from mmdata.fingerprint import fingerprint
from mmdata.select.cuts import Cut, Moments, cut_of, in_top_fraction, top_count
from mmdata.select.filters import REASON
from mmdata.select.rates import near
from mmdata.select.scores.named_scores import score_column
from mmdata.select.verdicts import Verdicts

COSINE = {"clip_score": 1.0}


@dataclass(frozen=True, slots=True)
class Top:
    """A rule that keeps the best share.

    Args:
        name: follows `filter:` in the reason of what it drops.
        weights: score -> weight. A single score counts as it is; several are standardised before they are added.
    """

    name: str
    weights: Mapping[str, float]
    fraction: float


def top_rules(settings: Filter) -> list[Top]:
    """The rules of a filter, `top_fraction` first, which is the short form of one over the cosine."""
    rules = [] if settings.top_fraction is None else [Top("top_fraction", COSINE, settings.top_fraction)]
    for entry in settings.top:
        weights = entry.weights or dict.fromkeys(entry.scores, 1.0)
        rules.append(Top(f"top:{entry.name}", weights, entry.fraction))
    return rules


def drop_below_tops(
    frame: pl.DataFrame,
    verdicts: Verdicts,
    settings: Filter,
    scorer: str,
    fingerprints: Mapping[str, str],
    parent: Mapping[str, Cut],
) -> dict[str, Cut]:
    """Drop what is not among the best share of every rule.

    As in DataComp, a fraction is of all scored rows, those that another rule drops included; a row that fails several
    has the first one's reason. Where a score does not apply to a row (null), the rule does not either; a row that
    ought to have a score and does not (NaN) is dropped.

    Args:
        frame: candidates, in uid order, with the columns of the scores.
        verdicts: written into.
        settings: the filter, its preset resolved.
        scorer: fingerprint of the scorer.
        fingerprints: score -> its fingerprint, of those that have one.
        parent: rule -> cut of the parent release, which is kept within `top_fraction_tolerance`.

    Returns:
        Rule -> where it ended, if any row is scored.
    """
    uid = frame["uid_high"].to_numpy(), frame["uid_low"].to_numpy()
    filtered = [0, *(i for i, name in enumerate(verdicts.names) if name.startswith(REASON))]
    pool = np.isin(verdicts.codes, filtered)
    cuts: dict[str, Cut] = {}
    for rule in top_rules(settings):
        own = [] if rule.weights == COSINE else [rule.weights, {name: fingerprints.get(name) for name in rule.weights}]
        of = fingerprint("cut", scorer, rule.fraction, *own)
        columns = [frame[score_column(name)].cast(pl.Float64) for name in rule.weights]
        applies = np.logical_and.reduce([column.is_not_null().to_numpy() for column in columns])
        values = [np.where(pool, column.fill_null(float("nan")).to_numpy(), np.nan) for column in columns]
        top, cut = None, parent.get(rule.name)
        wanted = top_count(int(np.isfinite(sum(values)).sum()), rule.fraction)
        if cut is not None and cut.of == of and settings.top_fraction_tolerance > 0:
            top = cut.keeps(weighted_sum(values, rule, cut.moments), *uid)
        if cut is None or top is None or not near(int(top.sum()), wanted, settings.top_fraction_tolerance):
            moments = _moments(values, rule)
            sums = weighted_sum(values, rule, moments)
            top = in_top_fraction(sums, rule.fraction)
            cut = cut_of(top, sums, *uid, of, moments)
        # what is dropped for its NaN cosine has the reason nan_score already
        verdicts.drop(np.flatnonzero((verdicts.codes == 0) & applies & ~top), f"{REASON}{rule.name}")
        if cut is not None:
            cuts[rule.name] = cut
    return cuts


def weighted_sum(values: Sequence[np.ndarray], rule: Top, moments: Moments | None) -> np.ndarray:
    """The sum of a rule's scores, standardised by `moments`, float64 (n,); a single score of weight 1 as it is."""
    if moments is None:
        return values[0]
    terms = [
        weight * (column - mean) / deviation if deviation > 0 else weight * (column - mean)
        for column, weight, (mean, deviation) in zip(values, rule.weights.values(), moments, strict=True)
    ]
    return np.asarray(sum(terms[1:], terms[0]))


def _moments(values: Sequence[np.ndarray], rule: Top) -> Moments | None:
    """Mean and standard deviation of each score over the rows that have them all; None where none are needed."""
    if list(rule.weights.values()) == [1.0]:
        return None
    scored = np.isfinite(sum(values))
    if not scored.any():
        return [(0.0, 0.0)] * len(values)
    return [(float(column[scored].mean()), float(column[scored].std())) for column in values]
