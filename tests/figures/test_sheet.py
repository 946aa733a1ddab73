"""Contact sheets stay under 20 KB and never fail, whatever they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmdata.figures.sheet import sample_grid, thumbnail
from mmdata.figures.svg_chart import MAX_BYTES


def check(data: bytes) -> Image.Image:
    assert len(data) < MAX_BYTES
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert picture.format == "JPEG"
    return picture


def noise(size_px: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_grid_of_pure_noise_still_fits() -> None:
    grid = check(sample_grid([noise(256, n) for n in range(20)], ["猫 " * 50] * 20, [0.3] * 20))
    assert grid.width > 300


def test_grid_shows_what_it_cannot_read_and_what_has_no_score() -> None:
    images = [b"", b"not a picture", noise(30, 1)[:200], noise(30, 2)]
    check(sample_grid(images, ["a", "", "<b>", "\x00"], [None, float("nan"), 0.1, -1.0]))
    check(sample_grid([], [], []))


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
