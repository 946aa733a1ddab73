"""The pictures of the demo, and the split that keeps them from the scorer's training."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmdata.demo.drawings import (
    all_emoji,
    demo_emoji,
    demo_photos,
    draw,
    emoji_base,
    is_demo_base,
    training_emoji,
    training_photos,
)


def test_demo_and_training_share_no_base_and_leave_none_out():
    shown, trained = {picture.base for picture in demo_emoji()}, {picture.base for picture in training_emoji()}
    assert not shown & trained
    assert shown | trained == {picture.base for picture in all_emoji()}
    assert 0.4 < len(shown) / (len(shown) + len(trained)) < 0.6


def test_photos_are_split_too():
    shown, trained = {picture.name for picture in demo_photos()}, {picture.name for picture in training_photos()}
    assert shown
    assert trained
    assert not shown & trained


@pytest.mark.parametrize(
    "variants",
    [
        ("1F44D", "1F44D-1F3FB", "1f44d-1f3ff"),
        ("1F468-200D-1F680", "1F469-200D-1F680", "1F9D1-1F3FD-200D-1F680"),
        ("1F3C3", "1F3C3-200D-2640-FE0F", "1F3C3-1F3FF-200D-2642-FE0F"),
        ("2764", "2764-FE0F"),
    ],
)
def test_variants_of_an_emoji_are_on_one_side(variants):
    assert len({emoji_base(code) for code in variants}) == 1


def test_the_split_is_what_the_shipped_weights_were_trained_by():
    bases = ["1F600", "1F680", "1F9D1-1F680", "2764", "1F1E9-1F1EA", "1F436", "1F34E", "1F6D1"]
    assert [is_demo_base(base) for base in bases] == EXPECTED


EXPECTED = [True, False, False, False, True, True, False, True]


def test_drawings_are_deterministic_and_of_the_asked_size_and_background():
    drawing = next(emoji for emoji in demo_emoji() if emoji.kind == "food")
    png = draw(drawing, 96, "#ffe680", zoom=0.5, shift=(0.1, 0.0))
    assert png == draw(drawing, 96, "#ffe680", zoom=0.5, shift=(0.1, 0.0))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert pixels.shape == (96, 96, 3)
    assert tuple(pixels[0, 0]) == (0xFF, 0xE6, 0x80)
    drawn = np.argwhere((pixels != pixels[0, 0]).any(axis=2))
    assert drawn[:, 0].min() > 20
    assert drawn[:, 1].mean() > 48  # moved to the right


def test_every_emoji_has_a_name_in_the_captions_languages():
    from mmdata.demo.caption_templates import LANGUAGES

    for drawing in demo_emoji():
        assert drawing.name
        assert set(LANGUAGES) <= set(drawing.names)


def test_photos_load_as_rgb():
    for photo in demo_photos():
        pixels = photo.load()
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8
