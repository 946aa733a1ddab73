"""The curve of a training: a PNG of less than 20 KB."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmdata.figures.plots import ACCENT, AFTER, FAINT, INK, encode

MAX_POINTS = 120


def loss_curve(log: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Draw training and validation loss by step.

    Args:
        log: the lines of log.jsonl; values that are no finite number are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 3.3), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.015, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False)
    drawn = False
    for kind, key, colour, label in (
        ("train", "loss", AFTER, "training"),
        ("validation", "val/loss", ACCENT, "validation"),
    ):
        points = thinned([(line["step"], line[key]) for line in log if line["kind"] == kind and _finite(line, key)])
        if points:
            marker = "o" if len(points) < 40 else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.6, marker=marker, markersize=3)
            drawn = True
    if drawn:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    else:
        axes.text(0.5, 0.5, "no steps yet", transform=axes.transAxes, ha="center", color=FAINT, fontsize=10)
    axes.set_xlabel("step", color=INK, fontsize=9)
    axes.set_ylabel("loss", color=INK, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.grid(axis="y", color="#E6E9EE", linewidth=0.8)
    return encode(figure)


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MAX_POINTS, evenly chosen, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    at = [round(n * (len(points) - 1) / (MAX_POINTS - 1)) for n in range(MAX_POINTS)]
    return [points[n] for n in at]


def _finite(line: Mapping[str, Any], key: str) -> bool:
    return isinstance(line.get(key), int | float) and math.isfinite(line[key])
