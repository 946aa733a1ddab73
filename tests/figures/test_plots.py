"""Plots stay under 20 KB and never fail, whatever they are given."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdata.figures.glyphs import MISSING, drawable
from mmdata.figures.plots import MAX_BYTES, before_after_bars, long_tail, score_histogram
from mmdata.figures.sheet import sample_grid, thumbnail

NASTY = ("$unclosed", "\\frac{", "猫 and 🦀", "a\nb\x00c", "\u202eevil", "", "x" * 500, "_^{}")


def check(data: bytes, kind: str = "PNG") -> Image.Image:
    assert len(data) < MAX_BYTES
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert picture.format == kind
    return picture


def noise(size: int, seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


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


@pytest.mark.parametrize("title", NASTY)
def test_titles_from_outside_draw_without_warnings(title: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(score_histogram(np.array([0.1, 0.4]), 0.2, title))
        check(before_after_bars({title: 3}, {title: 1}, title))
        check(long_tail([3, 1], [2], title))


def test_ten_thousand_categories_fold_into_others() -> None:
    counts = {f"concept {n} 概念 $x$ {'w' * (n % 90)}": 10_000_000 // (n + 1) for n in range(10_000)}
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


def test_grid_of_pure_noise_still_fits() -> None:
    grid = check(sample_grid([noise(256, n) for n in range(20)], ["猫 " * 50] * 20, [0.3] * 20), "JPEG")
    assert grid.width > 300


def test_grid_shows_what_it_cannot_read_and_what_has_no_score() -> None:
    images = [b"", b"not a picture", noise(30, 1)[:200], noise(30, 2)]
    check(sample_grid(images, ["a", "", "<b>", "\x00"], [None, float("nan"), 0.1, -1.0]), "JPEG")
    check(sample_grid([], [], []), "JPEG")


def test_grid_wants_equal_lengths() -> None:
    with pytest.raises(ValueError, match="zip"):
        sample_grid([b""], [], [])


def test_thumbnail_puts_transparency_on_white_and_bounds_the_size() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (400, 20), (255, 0, 0, 0)).save(buffer, "PNG")
    picture = thumbnail(buffer.getvalue(), 100)
    assert picture is not None
    assert picture.size == (100, 5)
    assert picture.getpixel((50, 2)) == (255, 255, 255)


def test_undrawable_runs_become_one_mark() -> None:
    assert drawable("a 猫猫 b\n\tc") == f"a {MISSING} b c"
    assert drawable("\u202eabc") == "abc"


def test_threads_draw_the_same_bytes() -> None:
    scores = np.linspace(0, 0.5, 500)
    drawn: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: drawn.append(score_histogram(scores, 0.3, "together"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 4 and len(set(drawn)) == 1
