"""The canvas: text from outside stays text, axes have round numbers, a page and a picture show the same chart."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from mmdata.figures.svg_chart import Chart, compact, decades, round_ticks, whole_ticks

NASTY = (
    "</text><script>alert(1)</script>",
    "& < > \" '",
    "猫 and 🦀",
    "a\nb\x00c",
    "\u202eevil",
    "",
    "x" * 500,
    "\ufffe",
)


@pytest.mark.parametrize("text", NASTY)
def test_text_from_outside_is_one_line_of_text(text: str) -> None:
    chart = Chart(text, text, {"after": text}, ['<line class="grid"/>'])
    root = ElementTree.fromstring(chart.picture())
    assert {element.tag.rpartition("}")[2] for element in root.iter()} == {"svg", "style", "rect", "text", "line"}
    assert all("\n" not in (element.text or "") for element in root.iter())
    ElementTree.fromstring(chart.inline())
    assert ElementTree.fromstring(Chart("t", "", {}, (), empty=text).picture()) is not None


def test_a_page_and_a_picture_hold_the_same_elements() -> None:
    chart = Chart("title", "notes", {"after": "after"}, ['<line class="grid" x1="1"/>'])
    assert '<line class="grid" x1="1"/>' in chart.inline()
    assert b'<line class="grid" x1="1"/>' in chart.picture()
    assert "style" not in chart.inline(), "the page has its own colours"


@pytest.mark.parametrize(("low", "high"), [(0, 7), (0, 1e9), (-0.2, 0.41), (3, 3), (-1e30, 1e30)])
def test_ticks_are_few_and_lie_within_the_bounds(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert len(ticks) <= 9
    assert all(low - 1e-9 <= tick <= high + abs(high) * 1e-9 for tick in ticks)


def test_ticks_of_counts_are_whole_and_those_of_logarithms_powers_of_ten() -> None:
    assert whole_ticks(3) == [0, 1, 2, 3]
    assert decades(5000) == [1, 10, 100, 1000]
    assert decades(30) == [1, 2, 5, 10, 20]


@pytest.mark.parametrize(("count", "text"), [(980, "980"), (1500, "1.5k"), (20_000_000, "20M"), (0.25, "0.25")])
def test_counts_on_an_axis_are_short(count: float, text: str) -> None:
    assert compact(count) == text
