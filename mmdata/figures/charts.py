"""Charts of the HTML report as inline SVG: coloured by CSS, so that they follow light, dark and print."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 1120, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 22, 40
BINS = 96


def histogram(scores: np.ndarray, threshold: float | None) -> Markup:
    """Scores as bars, those at or above the threshold coloured; NaN and infinities are left out."""
    finite = np.asarray(scores, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return _empty("no scores")
    ends = [float(finite.min()), float(finite.max())] + ([] if threshold is None else [threshold])
    low, high = min(ends), max(*ends, min(ends) + 0.02)
    edges = np.linspace(low, high, BINS + 1)
    cut = -np.inf if threshold is None else threshold
    below, above = np.histogram(finite[finite < cut], edges)[0], np.histogram(finite[finite >= cut], edges)[0]
    top = int((below + above).max())
    x, y = _scale(low, high, LEFT, WIDTH - RIGHT), _scale(0, top, HEIGHT - BOTTOM, TOP)
    parts = [_y_axis([tick for tick in _round_ticks(0, top) if float(tick).is_integer()], y)]
    for start, end, under, over in zip(edges[:-1], edges[1:], below, above, strict=True):
        for base, count, css in ((0, under, "below"), (under, over, "above")):
            if count:
                parts.append(
                    f'<rect class="{css}" x="{x(start):.1f}" width="{max(x(end) - x(start) - 1, 0.5):.1f}" '
                    f'y="{y(base + count):.1f}" height="{y(base) - y(base + count):.1f}"/>'
                )
    parts.append(_x_axis(_round_ticks(low, high), x, lambda value: f"{value:g}", "image-text cosine"))
    if threshold is not None:
        at, side = x(threshold), "end" if x(threshold) > WIDTH / 2 else "start"
        nudge = -6 if side == "end" else 6
        parts.append(f'<line class="cut" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 10}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text class="cut" x="{at + nudge:.1f}" y="{TOP - 4}" text-anchor="{side}">'
            f"threshold {threshold:.3f}</text>"
        )
    return _svg(parts, "Histogram of image-text scores")


def long_tail(before: Sequence[int], after: Sequence[int]) -> Markup:
    """Samples a concept by rank, both axes logarithmic, each curve ranked by itself; zeros are left out."""
    curves = [np.sort(np.asarray(counts, np.int64))[::-1] for counts in (before, after)]
    curves = [counts[counts > 0] for counts in curves]
    longest, top = max(len(c) for c in curves), max((int(c[0]) for c in curves if len(c)), default=0)
    if not longest:
        return _empty("no concepts")
    x = _scale(0, np.log10(max(longest, 2)), LEFT, WIDTH - RIGHT)
    y = _scale(0, np.log10(max(top, 2)), HEIGHT - BOTTOM, TOP)
    parts = [_y_axis(_decades(top), lambda value: y(np.log10(value)))]
    for counts, css in zip(curves, ("before", "after"), strict=True):
        if len(counts):
            ranks = np.unique(np.geomspace(1, len(counts), 160).astype(np.int64))
            points = " ".join(f"{x(np.log10(rank)):.1f},{y(np.log10(counts[rank - 1])):.1f}" for rank in ranks)
            parts.append(f'<polyline class="{css}" points="{points}"/>')
    parts.append(_x_axis(_decades(longest), lambda value: x(np.log10(value)), compact, "concept, by rank"))
    return _svg(parts, "Samples by concept rank, before and after")


def compact(value: float) -> str:
    """A count in few characters: 980, 1.5k, 20M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (float(value) - low) / span * (end - start)


def _decades(top: int) -> list[float]:
    powers = [10.0**power for power in range(int(np.log10(max(top, 1))) + 1)]
    return powers if len(powers) > 2 else sorted({*powers, *(p * f for p in powers for f in (2, 5) if p * f <= top)})


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers within the bounds."""
    span = high - low or 1.0
    step = 10.0 ** np.floor(np.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 8)
    return [
        round(float(value), 10) for value in np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1) * step
    ]


def _y_axis(ticks: Sequence[float], y: Callable[[float], float]) -> str:
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{compact(tick)}</text>'
        for tick in ticks
    ]
    return "".join(lines)


def _x_axis(ticks: Sequence[float], x: Callable[[float], float], label: Callable[[float], str], name: str) -> str:
    texts = [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(label(tick))}</text>'
        for tick in ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        "".join(texts) + f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(name)}</text>'
    )


def _svg(parts: Sequence[str], title: str) -> Markup:
    inside = "".join(parts)  # numbers and escaped text
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{inside}</svg>'
    )


def _empty(text: str) -> Markup:
    return Markup('<p class="none">{}</p>').format(text)
