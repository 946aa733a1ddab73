"""A chart of intervals: a row for each estimate, with the estimates that it is the mean of as dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.figures import svg_chart as svg
from mmdata.figures.svg_chart import Chart

NAME_PX = 300
MAX_NAME_CHARS = 42
ROW_PX = 30
COLOURS = {"after": "above zero", "held-out": "below zero", "before": "not told apart"}


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate.

    Args:
        low, high: its interval; not finite: there is none, and only the mean is drawn.
        dots: single estimates.
        css: a class of COLOURS.
    """

    name: str
    mean: float
    low: float
    high: float
    dots: Sequence[float] = ()
    css: str = "after"


def interval_chart(rows: Sequence[Interval], title: str, axis: str, zero: bool = False) -> Chart:
    """Draw estimates with their intervals below one another.

    Args:
        rows: names may come from outside.
        axis: what the values are.
        zero: draw a line at zero, from which intervals are told apart.
    """
    ends = [value for row in rows for value in (row.mean, row.low, row.high, *row.dots) if math.isfinite(value)]
    if not ends:
        return Chart(title, "", {}, (), empty="nothing was measured")
    low, high = min([*ends, *([0.0] if zero else [])]), max([*ends, *([0.0] if zero else [])])
    margin = (high - low or 0.02) * 0.04
    x = svg.scale(low - margin, high + margin, NAME_PX, svg.WIDTH_PX - svg.RIGHT_PX)
    bottom = 12 + ROW_PX * len(rows)
    elements = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="6" y2="{bottom}"/>'
        f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        for tick in svg.round_ticks(low, high)
    ]
    if zero:
        elements.append(f'<line class="cut" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="6" y2="{bottom}"/>')
    elements += [_row(row, 12 + ROW_PX * number, x) for number, row in enumerate(rows)]
    middle_px = (NAME_PX + svg.WIDTH_PX - svg.RIGHT_PX) / 2
    elements.append(
        f'<text class="axis" x="{middle_px}" y="{bottom + 34}" text-anchor="middle">{svg.one_line(axis)}</text>'
    )
    legend = {css: COLOURS[css] for css in COLOURS if any(row.css == css for row in rows)} if zero else {}
    return Chart(title, axis, legend, elements, height_px=bottom + 40)


def _row(row: Interval, top_px: float, x: svg.Scale) -> str:
    middle_px = top_px + ROW_PX / 2 - 4
    name = svg.one_line(row.name, MAX_NAME_CHARS)
    marks = [f'<text class="name" x="{NAME_PX - 12}" y="{middle_px + 4}" text-anchor="end">{name}</text>']
    if math.isfinite(row.low) and math.isfinite(row.high):
        width_px = max(x(row.high) - x(row.low), 1.0)
        marks.append(
            f'<rect class="{row.css}" x="{x(row.low):.1f}" y="{middle_px - 1.5}" width="{width_px:.1f}" height="3"/>'
        )
    marks += [
        f'<circle class="before" cx="{x(dot):.1f}" cy="{middle_px}" r="2.5"/>' for dot in row.dots if math.isfinite(dot)
    ]
    marks.append(f'<circle class="{row.css}" cx="{x(row.mean):.1f}" cy="{middle_px}" r="5"/>')
    return "".join(marks)
