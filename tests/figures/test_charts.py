"""Charts are well-formed SVG of less than 20 KB, and never fail, whatever they are given."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.figures.charts import (
    MAX_POINTS,
    before_after_bars,
    long_tail,
    loss_curve,
    score_histogram,
    thinned,
    two_histograms,
)
from mmdata.figures.svg_chart import MAX_BYTES, Chart

SVG = "{http://www.w3.org/2000/svg}"


def check(chart: Chart) -> ElementTree.Element:
    picture = chart.picture()
    assert len(picture) < MAX_BYTES
    assert b"nan" not in picture and b"inf" not in picture
    ElementTree.fromstring(chart.inline())
    return ElementTree.fromstring(picture)


@pytest.mark.parametrize(
    "scores",
    [
        np.array([]),
        np.array([np.nan, np.nan]),
        np.array([np.inf, -np.inf, 0.1]),
        np.array([0.3]),
        np.full(1000, 0.25, np.float32),
        np.random.default_rng(0).normal(0.3, 0.1, 200_000),
        np.array([-1e30, 1e30]),
        np.zeros((3, 4), np.float16),
    ],
)
@pytest.mark.parametrize("threshold", [None, 0.28, -5.0])
def test_histogram_of_anything(scores: np.ndarray, threshold: float | None) -> None:
    check(score_histogram(scores, threshold, "scores"))


def test_the_histogram_says_how_much_a_threshold_keeps_and_what_has_no_score() -> None:
    chart = score_histogram(np.array([0.1, 0.2, 0.3, 0.4, np.nan]), 0.25, "scores")
    assert chart.notes == "4 scored · 1 without a score · 50.0% at or above 0.25"
    heights = {
        path.get("class"): sum(float(top) < 240 for top in re.findall(r"V([\d.]+)", str(path.get("d"))))
        for path in check(chart).iter(f"{SVG}path")
    }
    assert heights == {"below": 2, "above": 2}


def test_the_axis_names_the_score_that_is_drawn() -> None:
    cosine, other = (score_histogram(np.array([0.1, 0.3]), 0.2, "t", *axis) for axis in ((), ("a<b & c",)))
    words = [{text.text for text in check(chart).iter(f"{SVG}text")} for chart in (cosine, other)]
    assert "image-text cosine" in words[0]
    assert "image-text cosine" not in words[1]
    assert "a<b & c" in words[1]


def test_ten_thousand_names_fold_into_others() -> None:
    counts = {f"concept {n} 概念 $x$ {'w' * (n % 90)}": 10_000_000 // (n + 1) for n in range(10_000)}
    assert "9,989 others" in before_after_bars(counts, counts, "many").inline()
    check(before_after_bars(counts, counts, "many"))
    check(long_tail(list(counts.values()), list(counts.values()), "many"))


@pytest.mark.parametrize("before", [{}, {"a": 0}, {"a": 0, "b": 10**15}])
def test_bars_of_nothing_and_of_much(before: dict[str, int]) -> None:
    check(before_after_bars(before, {}, "bars"))
    check(long_tail(list(before.values()), [], "tail"))


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(0, 10**12), max_size=300),
    st.lists(st.floats(width=32), max_size=300),
    st.floats(-1, 1) | st.none(),
)
def test_any_counts_and_scores(counts: list[int], scores: list[float], threshold: float | None) -> None:
    check(long_tail(counts, counts[::-1], "any"))
    check(score_histogram(np.array(scores), threshold, "any"))
    check(two_histograms(np.linspace(-1, 1, len(counts) + 2).tolist(), [*counts, 1], [0, *counts], "any"))


def test_two_histograms_are_drawn_as_shares_of_their_own_sums() -> None:
    same = two_histograms([0, 1, 2], [1, 3], [10, 30], "t")
    before, after = check(same).iter(f"{SVG}polyline")
    assert before.get("points") == after.get("points")
    assert same.notes == "4 → 40 scored samples"


def test_a_long_noisy_log_stays_under_the_limit() -> None:
    numbers = np.random.default_rng(0).random(20_000)
    log = [{"kind": "train", "step": n, "loss": 3 + noise} for n, noise in enumerate(numbers)]
    log += [{"kind": "validation", "step": n, "val/loss": 3.0} for n in range(0, 20_000, 100)]
    assert len(list(check(loss_curve(log, "align: loss")).iter(f"{SVG}polyline"))) == 2


def test_a_loss_that_is_no_number_is_not_drawn() -> None:
    nothing = loss_curve([], "t")
    assert "no steps yet" in nothing.inline()
    assert loss_curve([{"kind": "train", "step": 1, "loss": math.nan}], "t") == nothing
    check(loss_curve([{"kind": "train", "step": 1, "loss": 2.5}], "t"))


def test_thinning_keeps_both_ends() -> None:
    points = [(n, float(n)) for n in range(5000)]
    assert thinned(points[:10]) == points[:10]
    kept = thinned(points)
    assert (len(kept), kept[0], kept[-1]) == (MAX_POINTS, points[0], points[-1])
