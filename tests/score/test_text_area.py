"""The share of a picture that text covers."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from mmdata.score.preprocess import fit_picture
from mmdata.score.text_area import TextAreaScore, text_mask
from tests.support.scoring import photo

pytestmark = pytest.mark.skipif(find_spec("rapidocr") is None, reason="mmdata[scores] is not installed")

LINES = ("LIMITED OFFER TODAY", "everything must go", "call 555 0199 now")


def with_text(image: Image.Image, lines: tuple[str, ...], size: int) -> Image.Image:
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    for number, line in enumerate(lines):
        draw.text((20, 20 + number * size * 1.6), line, "white", ImageFont.load_default(size))
    return drawn


def scores(*images: Image.Image) -> list[float]:
    pixels = np.empty((len(images), 640, 640, 3), np.uint8)
    sizes = [(image.height, image.width) for image in images]
    for image, size, out in zip(images, sizes, pixels, strict=True):
        fit_picture(np.asarray(image), size, TextAreaScore.preprocess, out)
    return TextAreaScore(threads=1).of_pictures(pixels, sizes).tolist()


def test_more_and_larger_text_covers_more_of_a_picture() -> None:
    plain = photo(0)
    one, three, large = with_text(plain, LINES[:1], 16), with_text(plain, LINES, 16), with_text(plain, LINES, 26)
    of_plain, of_one, of_three, of_large = scores(plain, one, three, large)
    assert of_plain < 0.01 < of_one < of_three < of_large < 1


def test_a_picture_without_text_has_nearly_none() -> None:
    assert max(scores(*(photo(number) for number in range(4)))) < 0.01


def test_the_padding_does_not_count() -> None:
    """A line of text covers the share of its picture, whatever the shape of the picture is."""
    for image in (with_text(photo(1, 600, 150), LINES[:1], 40), with_text(photo(2, 500, 500), LINES[:1], 40)):
        ink = ImageDraw.Draw(image).textbbox((20, 20), LINES[0], ImageFont.load_default(40))
        box = (ink[2] - ink[0]) * (ink[3] - ink[1]) / (image.width * image.height)
        (share,) = scores(image)
        assert share == pytest.approx(box, rel=0.6)


def test_a_core_grows_back_by_the_formula_of_the_paper() -> None:
    probabilities = np.zeros((100, 200), np.float32)
    probabilities[40:51, 50:151] = 0.9  # its contour is 100 by 10
    probabilities[80:82, 10:12] = 0.9  # noise
    probabilities[10:21, 10:61] = 0.4  # a line that is not sure enough
    mask = text_mask(probabilities)
    distance = 100 * 10 * 1.6 / (2 * (100 + 10))
    rows, columns = np.nonzero(mask)
    assert rows.max() - rows.min() == pytest.approx(10 + 2 * distance, abs=1)
    assert columns.max() - columns.min() == pytest.approx(100 + 2 * distance, abs=1)
    assert (rows.min(), columns.min()) == (pytest.approx(40 - distance, abs=1), pytest.approx(50 - distance, abs=1))


def test_the_score_of_a_clip_is_the_mean_of_its_frames() -> None:
    assert TextAreaScore.of_clip(np.array([0.0, 0.5], np.float32)) == 0.25
