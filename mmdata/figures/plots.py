"""Small pictures for the UI and the report: each a PNG of less than 20 KB.

Colours are Okabe and Ito's, which colour-blind readers tell apart. Only matplotlib's object API is used, under a
lock: no pyplot, no global state, safe from any thread.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmdata.figures.glyphs import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BYTES = 20_000
BEFORE, AFTER, ACCENT, INK, FAINT = "#AEB6C2", "#0072B2", "#D55E00", "#1F2733", "#8A93A0"
MAX_BARS = 12

_lock = threading.Lock()


def score_histogram(scores: np.ndarray, threshold: float | None, title: str) -> bytes:
    """Draw how scores are distributed, and what a threshold keeps.

    Args:
        scores: any shape and float dtype; NaN and infinities are counted in the subtitle and not drawn.
        threshold: scores at or above it are kept; None draws none.

    Returns:
        A PNG of less than 20 KB.
    """
    flat = np.asarray(scores, dtype=np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    with _lock:
        figure, axes = _figure(title)
        notes = [f"{len(finite):,} scored"]
        if missing := len(flat) - len(finite):
            notes.append(f"{missing:,} without a score")
        if len(finite):
            ends = [float(finite.min()), float(finite.max())] + ([] if threshold is None else [threshold])
            edges = np.linspace(min(ends), max(*ends, min(ends) + 0.02), 61)
            cut = -np.inf if threshold is None else threshold
            lost, kept = finite[finite < cut], finite[finite >= cut]
            bottom = np.histogram(lost, edges)[0]
            width = np.diff(edges) * 0.92
            axes.bar(edges[:-1], bottom, width, align="edge", color=BEFORE, label="below")
            axes.bar(edges[:-1], np.histogram(kept, edges)[0], width, bottom, align="edge", color=AFTER, label="kept")
            if threshold is not None:
                axes.axvline(threshold, color=ACCENT, linewidth=1.6)
                share = len(kept) / len(finite)
                notes.append(f"{share:.1%} at or above {threshold:.3g}")
        else:
            _say_nothing(axes)
        if len(finite) and threshold is not None:
            _legend(axes)
        axes.set_xlabel("image-text cosine", color=INK, fontsize=9)
        axes.set_ylabel("samples", color=INK, fontsize=9)
        return _finish(figure, axes, " · ".join(notes))


def before_after_bars(before: Mapping[str, int], after: Mapping[str, int], title: str) -> bytes:
    """Draw counts by name before and after; the largest names one by one, the rest as one bar.

    Returns:
        A PNG of less than 20 KB.
    """
    names = sorted(set(before) | set(after), key=lambda n: (-max(before.get(n, 0), after.get(n, 0)), n))
    head, rest = (names, []) if len(names) <= MAX_BARS else (names[: MAX_BARS - 1], names[MAX_BARS - 1 :])
    rows = [(_shorten(name, 26), before.get(name, 0), after.get(name, 0)) for name in head]
    if rest:
        rows.append((f"{len(rest):,} others", sum(before.get(n, 0) for n in rest), sum(after.get(n, 0) for n in rest)))
    with _lock:
        figure, axes = _figure(title, height_in=1.5 + 0.34 * max(len(rows), 2))
        if rows:
            place = np.arange(len(rows), dtype=np.float64)
            largest = max(max(b, a) for _, b, a in rows) or 1
            for offset, colour, label, counts in (
                (-0.19, BEFORE, "before", [b for _, b, _ in rows]),
                (0.19, AFTER, "after", [a for _, _, a in rows]),
            ):
                axes.barh(place + offset, counts, 0.36, color=colour, label=label)
                for y, count in zip(place + offset, counts, strict=True):
                    axes.text(count + largest * 0.01, y, f"{count:,}", va="center", fontsize=7.5, color=INK)
            axes.set_yticks(place, [name for name, _, _ in rows], parse_math=False)
            axes.set_xlim(0, largest * 1.14)
            axes.invert_yaxis()
            axes.xaxis.set_major_formatter(_compact)
            _legend(axes)
        else:
            _say_nothing(axes)
        axes.set_xlabel("samples", color=INK, fontsize=9)
        totals = f"{sum(before.values()):,} → {sum(after.values()):,} samples, {len(names):,} kinds"
        return _finish(figure, axes, totals, grid="x")


def long_tail(before: Sequence[int], after: Sequence[int], title: str) -> bytes:
    """Draw samples a concept against the concept's rank, most common first, both axes logarithmic.

    Args:
        before, after: samples of each concept, in any order; each is ranked by itself and zeros are left out.

    Returns:
        A PNG of less than 20 KB.
    """
    curves = [np.sort(np.asarray(c, dtype=np.int64).ravel())[::-1] for c in (before, after)]
    curves = [c[c > 0] for c in curves]
    with _lock:
        figure, axes = _figure(title)
        for counts, colour, label in zip(curves, (FAINT, AFTER), ("before", "after"), strict=True):
            if len(counts):
                at = np.unique(np.geomspace(1, len(counts), 300).astype(np.int64))
                axes.plot(at, counts[at - 1], color=colour, label=label, linewidth=2, marker="o", markersize=2.6)
        if any(len(c) for c in curves):
            axes.set_xscale("log")
            axes.set_yscale("log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(_compact)
                axis.set_minor_formatter(lambda value, _: "")
            _legend(axes)
        else:
            _say_nothing(axes)
        axes.set_xlabel("concept, by rank", color=INK, fontsize=9)
        axes.set_ylabel("samples", color=INK, fontsize=9)
        spread = [f"{c[0] / np.median(c):.1f} x" if len(c) else "none" for c in curves]
        notes = f"{max(len(c) for c in curves):,} concepts · most common over median: {spread[0]} → {spread[1]}"
        return _finish(figure, axes, notes)


def two_histograms(edges: Sequence[float], before: Sequence[int], after: Sequence[int], title: str) -> bytes:
    """Draw two histograms over the same bins, as lines: N+1 edges, N counts each, as percentages of their sums.

    Returns:
        A PNG of less than 20 KB.
    """
    with _lock:
        figure, axes = _figure(title)
        for counts, colour, label in ((before, FAINT, "before"), (after, AFTER, "after")):
            axes.stairs(100 * np.asarray(counts) / max(1, sum(counts)), edges, color=colour, label=label, linewidth=2)
        _legend(axes)
        axes.set_xlabel("image-text cosine", color=INK, fontsize=9)
        axes.set_ylabel("% of samples", color=INK, fontsize=9)
        return _finish(figure, axes, f"{sum(before):,} → {sum(after):,} scored samples")


def _shorten(text: str, length: int) -> str:
    text = drawable(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _figure(title: str, height_in: float = 3.3) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, height_in), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(
        _shorten(title, 72), x=0.015, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False
    )
    return figure, axes


def _compact(value: float, _position: float = 0) -> str:
    """A count on an axis: 0, 250, 1.5k, 20M; nothing between whole numbers."""
    if not float(value).is_integer():
        return ""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:.0f}"


def _legend(axes: Axes) -> None:
    """One line at the right, above the plot, where no bar can be."""
    axes.legend(
        frameon=False,
        fontsize=8.5,
        loc="lower right",
        bbox_to_anchor=(1.0, 0.985),
        ncols=2,
        labelcolor=INK,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.2,
    )


def _say_nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center", color=FAINT, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def _finish(figure: Figure, axes: Axes, notes: str, grid: str = "y") -> bytes:
    """Add subtitle and axis style, then encode."""
    axes.set_title(drawable(notes), loc="left", fontsize=8.5, color=FAINT, parse_math=False)
    for side in ("top", "right", "left" if grid == "y" else "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color("#C9CFD8")
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="x" if grid == "x" else "y", color="#E6E9EE", linewidth=0.8)
    axes.set_axisbelow(True)
    if grid == "y" and axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter(_compact)
    return encode(figure)


def encode(figure: Figure) -> bytes:
    """A figure as a PNG, at the largest size that stays under MAX_BYTES."""
    for dpi in (132, 110, 88, 66, 44):
        data = _encode(figure, dpi)
        if len(data) < MAX_BYTES:
            return data
    raise AssertionError("a 290-pixel-wide plot exceeds 20 KB")


def _encode(figure: Figure, dpi: int) -> bytes:
    """Render to a palette PNG: a plot has few colours, and 48 of them carry its antialiasing."""
    from PIL import Image

    raw = io.BytesIO()
    figure.savefig(raw, format="rgba", dpi=dpi)
    size = (int(figure.get_figwidth() * dpi), int(figure.get_figheight() * dpi))
    picture = Image.frombytes("RGBA", size, raw.getvalue()).convert("RGB")
    out = io.BytesIO()
    picture.quantize(48, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()
