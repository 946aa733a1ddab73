"""The canvas of every chart: axes, scales and SVG. A page shows a chart with its own colours, the UI as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from mmdata.display import REPLACEMENT, shown

WIDTH_PX, HEIGHT_PX = 1120, 280
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 56, 12, 22, 40
BAR_ROW_PX = 34
TITLE_PX = 56  # above the chart, where a picture has its title and notes
MAX_BYTES = 20_000
MAX_TITLE_CHARS = 72

# Okabe and Ito's colours, which colour-blind readers tell apart. report.css has the same classes with colours for
# light, dark and print; a picture in the UI cannot see that file, and always has a white background.
_PICTURE_STYLE = (
    "text{font:11.5px sans-serif;fill:#5b6676}.grid{stroke:#e1e5ea}polyline{fill:none;stroke-width:2.2}"
    ".before,.below{fill:#aeb6c2}.after,.above{fill:#0072b2}polyline.before{stroke:#8a93a0;fill:none}"
    "polyline.after{stroke:#0072b2;fill:none}polyline.held-out{stroke:#d55e00}"
    "line.cut{stroke:#d55e00;stroke-width:1.6}text.cut,.held-out{fill:#d55e00}polyline.held-out{fill:none}"
    "text.title{font:bold 17px sans-serif;fill:#1f2733}text.name{fill:#1f2733}"
)

Scale = Callable[[float], float]
"""From a value to a place on the canvas, in pixels."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart.

    Args:
        title: plain text; it may come from outside.
        notes: the figures in one line, shown under the title of a picture.
        legend: CSS class -> what it stands for, as shown in a picture; a page has legends of its own.
        elements: SVG elements, with all text in them escaped; none means that there is nothing to draw.
        empty: shown where there is nothing to draw.
    """

    title: str
    notes: str
    legend: dict[str, str]
    elements: Sequence[str]
    height_px: int = HEIGHT_PX
    empty: str = "nothing to draw"

    def inline(self) -> Markup:
        """The chart as part of an HTML page, coloured by report.css."""
        if not self.elements:
            return Markup('<p class="none">{}</p>').format(self.empty)
        box = f'class="chart" viewBox="0 0 {WIDTH_PX} {self.height_px}"'
        return Markup(f'<svg {box} role="img" aria-label="{one_line(self.title)}">{"".join(self.elements)}</svg>')

    def picture(self) -> bytes:
        """The chart as an SVG file of less than 20 KB, with its title, notes, legend and colours in it."""
        height_px = self.height_px + TITLE_PX
        title = one_line(self.title, MAX_TITLE_CHARS)
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height_px}" '
            f'viewBox="0 {-TITLE_PX} {WIDTH_PX} {height_px}"><style>{_PICTURE_STYLE}</style>'
            f'<rect y="{-TITLE_PX}" width="{WIDTH_PX}" height="{height_px}" fill="#fff"/>',
            f'<text class="title" x="{RIGHT_PX}" y="{22 - TITLE_PX}">{title}</text>',
            f'<text x="{RIGHT_PX}" y="{44 - TITLE_PX}">{one_line(self.notes)}</text>',
        ]
        left_px = WIDTH_PX - 110 * len(self.legend)
        for number, (css, label) in enumerate(self.legend.items()):
            x_px = left_px + 110 * number
            head.append(f'<rect class="{css}" x="{x_px}" y="{13 - TITLE_PX}" width="11" height="11"/>')
            head.append(f'<text x="{x_px + 17}" y="{22 - TITLE_PX}">{one_line(label)}</text>')
        elements = self.elements or [
            f'<text x="{WIDTH_PX / 2}" y="{self.height_px / 2}" text-anchor="middle">{one_line(self.empty)}</text>'
        ]
        return "".join([*head, *elements, "</svg>"]).encode()


def one_line(text: str, max_chars: int = 200) -> Markup:
    """Text from outside as text of an SVG element: one line, cut, escaped, without characters that XML forbids."""
    flat = " ".join(shown(text).split()).replace("\ufffe", REPLACEMENT).replace("\uffff", REPLACEMENT)
    return escape(flat if len(flat) <= max_chars else flat[: max_chars - 1].rstrip() + "…")


def scale(low: float, high: float, start_px: float, end_px: float) -> Scale:
    """Map the values from `low` to `high` linearly to the pixels from `start_px` to `end_px`."""
    span = high - low or 1.0
    return lambda value: start_px + (float(value) - low) / span * (end_px - start_px)


def x_scale(low: float, high: float) -> Scale:
    """Map values to the width of the chart."""
    return scale(low, high, LEFT_PX, WIDTH_PX - RIGHT_PX)


def y_scale(low: float, high: float) -> Scale:
    """Map values to the height of the chart, upwards."""
    return scale(low, high, HEIGHT_PX - BOTTOM_PX, TOP_PX)


def decades(highest: int) -> list[float]:
    """Powers of ten up to `highest`, as the ticks of a logarithmic axis; with 2 and 5 of each where these are few."""
    powers = [10.0**power for power in range(int(np.log10(max(highest, 1))) + 1)]
    if len(powers) > 2:
        return powers
    return sorted({*powers, *(power * step for power in powers for step in (2, 5) if power * step <= highest)})


def round_ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers within the bounds."""
    span = high - low or 1.0
    step = 10.0 ** np.floor(np.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 8)
    ticks = np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1) * step
    return [round(float(tick), 10) + 0.0 for tick in ticks]  # + 0.0 makes -0 a plain 0


def whole_ticks(highest: int) -> list[float]:
    """Round ticks from 0 for an axis of counts: whole numbers only."""
    return [tick for tick in round_ticks(0, highest) if tick.is_integer()]


def compact(value: float) -> str:
    """A count in few characters: 980, 1.5k, 20M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def y_axis(ticks: Sequence[float], y: Scale) -> str:
    """Grid lines with their values at the left."""
    return "".join(
        f'<line class="grid" x1="{LEFT_PX}" x2="{WIDTH_PX - RIGHT_PX}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{LEFT_PX - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{compact(tick)}</text>'
        for tick in ticks
    )


def x_axis(ticks: Sequence[float], x: Scale, name: str, label: Callable[[float], str] = "{:g}".format) -> str:
    """Values below the chart, and what they are."""
    texts = [
        f'<text x="{x(tick):.1f}" y="{HEIGHT_PX - BOTTOM_PX + 18}" text-anchor="middle">{escape(label(tick))}</text>'
        for tick in ticks
    ]
    middle_px = (LEFT_PX + WIDTH_PX - RIGHT_PX) / 2
    return (
        "".join(texts)
        + f'<text class="axis" x="{middle_px}" y="{HEIGHT_PX - 4}" text-anchor="middle">{escape(name)}</text>'
    )


def line(css: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """A line through points, given in pixels."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{css}" points="{points}"/>'
