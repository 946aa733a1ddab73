"""The best shares by named scores and weighted sums: intersections, standardised sums, and cuts that stay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Filter
from mmdata.select.cuts import Cut
from mmdata.select.top_fractions import drop_below_tops, top_rules
from mmdata.select.verdicts import Verdicts

NUMBERS = st.lists(st.tuples(st.floats(-2, 2, width=32), st.floats(0, 9, width=32)), min_size=1, max_size=40)


def judged(
    scores: dict[str, list[float | None]],
    settings: dict[str, Any],
    reasons: list[str | None] | None = None,
    parent: dict[str, Cut] | None = None,
    first_uid: int = 0,
) -> tuple[list[str | None], dict[str, Cut]]:
    """The reason of each row, and the cuts."""
    count = len(next(iter(scores.values())))
    columns = {name: pl.Series(values, dtype=pl.Float32) for name, values in scores.items()}
    uids = pl.Series(range(first_uid, first_uid + count), dtype=pl.UInt64)
    frame = pl.DataFrame({**columns, "uid_high": uids, "uid_low": uids})
    verdicts = Verdicts(pl.Series(reasons or [None] * count, dtype=pl.String))
    cuts = drop_below_tops(frame, verdicts, Filter.model_validate(settings), "scorer", {}, parent or {})
    return verdicts.reasons().to_list(), cuts


def test_the_short_form_is_a_rule_over_the_cosine() -> None:
    scores = {"clip_score": [0.1, 0.5, 0.3, 0.4]}
    short, short_cuts = judged(scores, {"top_fraction": 0.5})
    long, long_cuts = judged(scores, {"top": [{"score": "clip_score", "fraction": 0.5}]})
    assert [reason is None for reason in short] == [reason is None for reason in long] == [False, True, False, True]
    assert (short[0], long[0]) == ("filter:top_fraction", "filter:top:clip_score")
    assert short_cuts["top_fraction"] == long_cuts["top:clip_score"]


def test_a_sample_must_be_in_every_top_and_each_is_of_all_scored_rows() -> None:
    scores = {"clip_score": [0.9, 0.8, 0.2, 0.1], "score_sim": [0.1, 0.8, 0.9, 0.2]}
    tops = [{"score": "clip_score", "fraction": 0.5}, {"score": "sim", "fraction": 0.5}]
    low = "filter:top:clip_score"
    assert judged(scores, {"top": tops})[0] == ["filter:top:sim", None, low, low]
    kept = ["filter:language", None, None, None]
    assert judged(scores, {"top": tops[:1]}, kept)[0][1:] == [None, low, low], "0.9 counts, too"
    broken = ["media:http_404", None, None, None]
    assert judged(scores, {"top": tops[:1]}, broken)[0][1:] == [None, None, low]


def test_a_score_that_does_not_apply_passes_and_one_that_is_lacking_drops() -> None:
    scores = {"score_sim": [None, math.nan, 0.5, 0.4]}
    assert judged(scores, {"top": [{"score": "sim", "fraction": 0.5}]})[0] == [
        None,
        "filter:top:sim",
        None,
        "filter:top:sim",
    ]


@given(NUMBERS, st.sampled_from([-1.0, 0.3, 2.0]), st.sampled_from([0.2, 0.5, 1.0]))
def test_a_weighted_sum_is_of_scores_less_their_mean_over_their_deviation(
    numbers: list[tuple[float, float]], weight: float, fraction: float
) -> None:
    first, second = (np.array(column, np.float32).astype(float) for column in zip(*numbers, strict=True))
    reasons, cuts = judged(
        {"score_a": first.tolist(), "score_b": second.tolist()},
        {"top": [{"weights": {"a": 1, "b": weight}, "fraction": fraction}]},
    )
    deviations = [float(column.std()) or 1.0 for column in (first, second)]
    total = (first - first.mean()) / deviations[0] + weight * (second - second.mean()) / deviations[1]
    kept = np.array([reason is None for reason in reasons])
    assert kept.sum() == math.ceil(round(fraction * len(numbers), 9))
    if not kept.all():
        assert total[kept].min() >= total[~kept].max() - 1e-6
    assert set(reasons) <= {None, "filter:top:a+b"}
    assert cuts["top:a+b"].score == pytest.approx(total[kept].min(), abs=1e-6)


def test_a_cut_and_its_moments_are_kept_while_the_share_fits() -> None:
    settings = {"top_fraction_tolerance": 0.3, "top": [{"weights": {"a": 1, "b": 1}, "fraction": 0.5}]}
    rng = np.random.default_rng(0)
    first = {name: rng.normal(size=100).tolist() for name in ("score_a", "score_b")}
    before, cuts = judged(first, settings)
    grown = {name: [*values, *(rng.normal(size=10) + 0.3).tolist()] for name, values in first.items()}
    after, kept_cuts = judged(grown, settings, parent=cuts)
    assert after[:100] == before, "no old sample moves"
    assert kept_cuts == cuts
    fresh, _ = judged(grown, settings | {"top_fraction_tolerance": 0.0}, parent=cuts)
    assert sum(reason is None for reason in fresh) == 55
    moved = {name: [*values, *(rng.normal(size=100) + 5).tolist()] for name, values in first.items()}
    assert judged(moved, settings, parent=cuts)[1] != cuts
    other_weights = {**settings, "top": [{"weights": {"a": 1, "b": 2}, "fraction": 0.5}]}
    assert judged(grown, other_weights, parent=cuts)[1] != cuts


def test_the_rules_have_names_for_their_reasons() -> None:
    settings = Filter.model_validate(
        {"top_fraction": 0.5, "top": [{"score": "a", "fraction": 0.1}, {"weights": {"a": 1, "b": -1}, "fraction": 0.2}]}
    )
    assert [rule.name for rule in top_rules(settings)] == ["top_fraction", "top:a", "top:a+b"]
