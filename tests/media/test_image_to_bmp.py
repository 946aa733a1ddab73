"""Unusual and large images are stored as viewers show them."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdata.download.images import process_image
from tests.support.encoded_images import SETTINGS, encoded, gradient, pillow, psnr_db, stored


@pytest.mark.parametrize("scale", [2, 3, 9])
def test_large_jpegs_decoded_at_a_fraction_look_the_same(scale):
    large = gradient(340 * scale, 260 * scale)
    body = encoded(large, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98)
    whole = cv2.resize(large, (335, 256), interpolation=cv2.INTER_AREA)
    assert psnr_db(stored(body), whole) > 38
    assert process_image(body, SETTINGS).original_size == (340 * scale, 260 * scale)


@pytest.mark.parametrize(
    ("form", "orientation", "scale"),
    [*(("JPEG", number, 1) for number in range(1, 9)), ("JPEG", 6, 3), ("PNG", 7, 1), ("PNG", 8, 3), ("WEBP", 5, 1)],
)
def test_exif_orientation_is_respected(form, orientation, scale):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = gradient(400 * scale, 300 * scale)
    lossless = {"lossless": True} if form == "WEBP" else {}
    body = pillow(pixels, form, exif=exif, **lossless)
    turns = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }
    upright = turns[orientation]
    size = (256, 341) if orientation >= 5 else (341, 256)
    expected = cv2.resize(np.ascontiguousarray(upright), size, interpolation=cv2.INTER_AREA)
    assert psnr_db(stored(body), expected) > 33
    assert process_image(body, SETTINGS).original_size == (upright.shape[1], upright.shape[0])


def test_sixteen_bits_keep_their_brightness():
    sixteen = gradient().astype(np.uint16) * 257
    eight = stored(encoded(gradient(), ".png"))
    assert psnr_db(stored(encoded(sixteen, ".png")), eight) > 38
    grey = np.full((300, 300), 40_000, np.uint16)
    assert abs(stored(encoded(grey, ".png")).mean() - 156) < 2


@pytest.mark.parametrize("depth", [8, 16])
def test_transparency_is_laid_on_white(depth):
    kind = np.uint8 if depth == 8 else np.uint16
    half = np.zeros((300, 400, 4), kind)
    half[:, 200:] = (0, 0, 2**depth - 1, 2**depth - 1)  # opaque red to the right
    pixels = stored(encoded(half, ".png"))
    assert pixels[:, :150].mean() > 250
    assert np.allclose(pixels[128, 300], (0, 0, 255), atol=8)


def test_a_key_colour_is_transparent_too():
    image = Image.new("P", (300, 300), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    out = io.BytesIO()
    image.save(out, "PNG", transparency=0)
    assert stored(out.getvalue()).mean() > 250
    out = io.BytesIO()
    image.save(out, "GIF", transparency=0)
    assert stored(out.getvalue()).mean() > 250


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "P"), ("GIF", "P"), ("TIFF", "RGB")],
)
def test_unusual_kinds_of_pixel_look_as_a_viewer_shows_them(form, mode):
    expected = stored(pillow(gradient(), "PNG", "L" if mode in ("L", "LA", "1") else "RGB"))
    got = stored(pillow(gradient(), form, mode))
    assert abs(got.mean() - expected.mean()) < 3
    assert psnr_db(cv2.blur(got, (9, 9)), cv2.blur(expected, (9, 9))) > 22  # palettes and dither are coarse


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_of_many_is_taken(form):
    first, second = (Image.new("RGB", (300, 280), colour) for colour in ("blue", "red"))
    out = io.BytesIO()
    first.save(out, form, save_all=True, append_images=[second])
    assert np.allclose(stored(out.getvalue())[100, 100], (255, 0, 0), atol=6)
    mime = process_image(out.getvalue(), SETTINGS).mime
    assert mime == ("image/jpeg" if form == "MPO" else f"image/{form.lower()}")
