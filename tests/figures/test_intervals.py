"""Intervals are drawn where their values are, and what is not finite is left out."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from mmdata.figures.intervals import Interval, interval_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_means_stand_in_the_order_of_their_values() -> None:
    rows = [Interval(str(mean), mean, mean - 0.1, mean + 0.1) for mean in (0.3, -0.2, 0.9)]
    root = ElementTree.fromstring(interval_chart(rows, "t", "a").picture())
    places = [float(one.get("cx", "")) for one in root.iter(f"{SVG}circle")]
    assert places[1] < places[0] < places[2]
    bars = [one for one in root.iter(f"{SVG}rect") if one.get("height") == "3"]
    assert len(bars) == 3


def test_the_line_at_zero_is_on_the_chart_though_no_interval_reaches_it() -> None:
    root = ElementTree.fromstring(interval_chart([Interval("x", 0.5, 0.4, 0.6)], "t", "a", zero=True).picture())
    zero = next(one for one in root.iter(f"{SVG}line") if one.get("class") == "cut")
    bar = next(one for one in root.iter(f"{SVG}rect") if one.get("height") == "3")
    assert float(zero.get("x1", "")) < float(bar.get("x", ""))


def test_an_infinite_interval_shows_its_mean_only() -> None:
    text = interval_chart([Interval("x", 0.5, -math.inf, math.inf, (0.5, math.nan))], "t", "a").picture().decode()
    assert "inf" not in text
    assert "nan" not in text
    assert text.count("<circle") == 2


def test_names_are_escaped_and_cut() -> None:
    text = interval_chart([Interval("<b>" + "x" * 90, 0.0, 0.0, 0.0)], "<i>", "a").picture().decode()
    assert "<b>" not in text
    assert "<i>" not in text
    assert "x" * 60 not in text


def test_nothing_to_draw_is_said() -> None:
    assert "nothing was measured" in interval_chart([], "t", "a").inline()
