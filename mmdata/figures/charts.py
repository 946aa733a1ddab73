"""The charts of the HTML pages and of the UI: scores, counts by name, the long tail of concepts, losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmdata.figures import svg_chart as svg
from mmdata.figures.svg_chart import Chart

BINS = 96
MAX_BARS = 12
NAME_PX = 190
MAX_NAME_CHARS = 26
MAX_POINTS = 120
BEFORE_AFTER = {"before": "before", "after": "after"}
COSINE = "image-text cosine"


def score_histogram(scores: np.ndarray, threshold: float | None, title: str, axis: str = COSINE) -> Chart:
    """Draw how scores are distributed, and what a threshold keeps.

    Args:
        scores: any shape and float dtype; NaN and infinities are counted in the notes and not drawn.
        threshold: scores at or above it are kept; None draws none.
        axis: what the scores are.
    """
    flat = np.asarray(scores, np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    notes = [f"{len(finite):,} scored"]
    if missing := len(flat) - len(finite):
        notes.append(f"{missing:,} without a score")
    if not len(finite):
        return Chart(title, " · ".join(notes), {}, (), empty="no scores")
    ends = [float(finite.min()), float(finite.max())] + ([] if threshold is None else [threshold])
    low, high = min(ends), max(*ends, min(ends) + 0.02)
    edges = np.linspace(low, high, BINS + 1)
    is_kept = finite >= (-np.inf if threshold is None else threshold)
    below, above = np.histogram(finite[~is_kept], edges)[0], np.histogram(finite[is_kept], edges)[0]
    highest = int((below + above).max())
    x, y = svg.x_scale(low, high), svg.y_scale(0, highest)
    elements = [svg.y_axis(svg.whole_ticks(highest), y)]
    for css, bottoms, counts in (("below", np.zeros_like(below), below), ("above", below, above)):
        bars = [
            f"M{x(start):.1f} {y(bottom):.1f}h{max(x(end) - x(start) - 1, 0.5):.1f}V{y(bottom + count):.1f}"
            f"H{x(start):.1f}z"
            for start, end, bottom, count in zip(edges[:-1], edges[1:], bottoms, counts, strict=True)
            if count
        ]
        if bars:
            elements.append(f'<path class="{css}" d="{"".join(bars)}"/>')
    elements.append(svg.x_axis(svg.round_ticks(low, high), x, axis))
    if threshold is not None:
        notes.append(f"{is_kept.mean():.1%} at or above {threshold:.3g}")
        at_px = x(threshold)
        side, nudge_px = ("end", -6) if at_px > svg.WIDTH_PX / 2 else ("start", 6)
        bottom_px = svg.HEIGHT_PX - svg.BOTTOM_PX
        elements.append(
            f'<line class="cut" x1="{at_px:.1f}" x2="{at_px:.1f}" y1="{svg.TOP_PX - 10}" y2="{bottom_px}"/>'
            f'<text class="cut" x="{at_px + nudge_px:.1f}" y="{svg.TOP_PX - 4}" text-anchor="{side}">'
            f"threshold {threshold:.3f}</text>"
        )
    return Chart(title, " · ".join(notes), {"below": "below", "above": "kept"}, elements)


def before_after_bars(before: Mapping[str, int], after: Mapping[str, int], title: str) -> Chart:
    """Draw counts by name before and after; the largest names one by one, the rest as one bar."""
    names = sorted(set(before) | set(after), key=lambda n: (-max(before.get(n, 0), after.get(n, 0)), n))
    head, rest = (names, []) if len(names) <= MAX_BARS else (names[: MAX_BARS - 1], names[MAX_BARS - 1 :])
    rows = [(svg.one_line(name, MAX_NAME_CHARS), before.get(name, 0), after.get(name, 0)) for name in head]
    if rest:
        others = svg.one_line(f"{len(rest):,} others")
        rows.append((others, sum(before.get(n, 0) for n in rest), sum(after.get(n, 0) for n in rest)))
    largest = max((max(b, a) for _, b, a in rows), default=1) or 1
    width = svg.scale(0, largest, 0, svg.WIDTH_PX - NAME_PX - 90)
    elements = []
    for number, (name, *pair) in enumerate(rows):
        top_px = 6 + svg.BAR_ROW_PX * number
        elements.append(f'<text class="name" x="{NAME_PX - 10}" y="{top_px + 17}" text-anchor="end">{name}</text>')
        for css, count, y_px in zip(BEFORE_AFTER, pair, (top_px, top_px + 13), strict=True):
            length_px = width(count)
            elements.append(f'<rect class="{css}" x="{NAME_PX}" y="{y_px}" width="{length_px:.1f}" height="11"/>')
            elements.append(f'<text x="{NAME_PX + length_px + 6:.1f}" y="{y_px + 10}">{count:,}</text>')
    totals = f"{sum(before.values()):,} → {sum(after.values()):,} samples, {len(names):,} kinds"
    return Chart(title, totals, BEFORE_AFTER, elements, height_px=12 + svg.BAR_ROW_PX * max(len(rows), 2))


def long_tail(before: Sequence[int], after: Sequence[int], title: str) -> Chart:
    """Draw samples a concept against the concept's rank, most common first, both axes logarithmic.

    Args:
        before, after: samples of each concept, in any order; each is ranked by itself and zeros are left out.
    """
    curves = [np.sort(np.asarray(counts, np.int64))[::-1] for counts in (before, after)]
    curves = [counts[counts > 0] for counts in curves]
    longest, highest = max(len(c) for c in curves), max((int(c[0]) for c in curves if len(c)), default=0)
    if not longest:
        return Chart(title, "", {}, (), empty="no concepts")
    x, y = svg.x_scale(0, np.log10(max(longest, 2))), svg.y_scale(0, np.log10(max(highest, 2)))
    elements = [svg.y_axis(svg.decades(highest), lambda value: y(np.log10(value)))]
    for css, counts in zip(BEFORE_AFTER, curves, strict=True):
        if len(counts):
            ranks = np.unique(np.geomspace(1, len(counts), 160).astype(np.int64))
            elements.append(svg.line(css, [x(np.log10(r)) for r in ranks], [y(np.log10(counts[r - 1])) for r in ranks]))
    elements.append(svg.x_axis(svg.decades(longest), lambda value: x(np.log10(value)), "concept, by rank", svg.compact))
    spread = [f"{counts[0] / np.median(counts):.1f} x" if len(counts) else "none" for counts in curves]
    notes = f"{longest:,} concepts · most common over median: {spread[0]} → {spread[1]}"
    return Chart(title, notes, BEFORE_AFTER, elements)


def two_histograms(edges: Sequence[float], before: Sequence[int], after: Sequence[int], title: str) -> Chart:
    """Draw two histograms over the same bins, as lines: N+1 edges, N counts each, as percentages of their sums."""
    percents = [100 * np.asarray(counts) / max(1, sum(counts)) for counts in (before, after)]
    highest = max(float(percent.max()) for percent in percents)
    x, y = svg.x_scale(edges[0], edges[-1]), svg.y_scale(0, highest)
    elements = [svg.y_axis(svg.round_ticks(0, highest), y)]
    corners = [x(edge) for edge in np.repeat(edges, 2)][1:-1]
    for css, percent in zip(BEFORE_AFTER, percents, strict=True):
        elements.append(svg.line(css, corners, [y(value) for value in np.repeat(percent, 2)]))
    elements.append(svg.x_axis(svg.round_ticks(edges[0], edges[-1]), x, f"{COSINE}; % of samples"))
    return Chart(title, f"{sum(before):,} → {sum(after):,} scored samples", BEFORE_AFTER, elements)


def loss_curve(log: Sequence[Mapping[str, Any]], title: str) -> Chart:
    """Draw training and validation loss by step.

    Args:
        log: the lines of log.jsonl; values that are no finite number are left out.
    """
    curves = {
        css: thinned([(entry["step"], entry[key]) for entry in log if entry["kind"] == kind and _is_finite(entry, key)])
        for css, kind, key in (("after", "train", "loss"), ("held-out", "validation", "val/loss"))
    }
    drawn = [point for points in curves.values() for point in points]
    if not drawn:
        return Chart(title, "", {}, (), empty="no steps yet")
    steps, losses = zip(*drawn, strict=True)
    x, y = svg.x_scale(min(steps), max(steps)), svg.y_scale(min(losses), max(losses))
    elements = [svg.y_axis(svg.round_ticks(min(losses), max(losses)), y)]
    elements += [
        svg.line(css, [x(step) for step, _ in points], [y(loss) for _, loss in points])
        for css, points in curves.items()
        if points
    ]
    elements.append(svg.x_axis(svg.round_ticks(min(steps), max(steps)), x, "step", svg.compact))
    notes = f"{len(curves['after']):,} points of training, {len(curves['held-out']):,} of validation"
    return Chart(title, notes, {"after": "training", "held-out": "validation"}, elements)


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MAX_POINTS, evenly chosen, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    at = [round(n * (len(points) - 1) / (MAX_POINTS - 1)) for n in range(MAX_POINTS)]
    return [points[n] for n in at]


def _is_finite(entry: Mapping[str, Any], key: str) -> bool:
    return isinstance(entry.get(key), int | float) and math.isfinite(entry[key])
