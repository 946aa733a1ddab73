"""A JPEG without its end is stored if its picture is complete, and never half grey."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from mmdata.download.images import process_image
from mmdata.media.jpeg_markers import END
from mmdata.media.jpeg_tail import CUT_SHORT, closed_jpeg, ends_in_grey, is_cut_short, lacks_scans
from tests.support.encoded_images import SETTINGS, encoded, gradient, pillow, stored

NOISE = np.random.default_rng(0).integers(-20, 20, (480, 640, 3))
PIXELS = (gradient().astype(int) + NOISE).clip(0, 255).astype(np.uint8)
FLAT = np.vstack([PIXELS[:240], np.full((240, 640, 3), 255, np.uint8)])

FILES: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: pillow(PIXELS, "JPEG"),
    "large": lambda: pillow(np.tile(PIXELS, (3, 3, 1)), "JPEG"),
    "own tables": lambda: pillow(PIXELS, "JPEG", optimize=True),
    "progressive": lambda: pillow(PIXELS, "JPEG", progressive=True),
    "grey": lambda: pillow(PIXELS, "JPEG", "L"),
    "CMYK": lambda: pillow(PIXELS, "JPEG", "CMYK"),
    "restarts": lambda: encoded(PIXELS, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 40),
    "flat below": lambda: pillow(FLAT, "JPEG"),
}


@pytest.mark.parametrize("name", FILES)
def test_only_the_end_marker_may_be_missing(name):
    body = FILES[name]()
    for complete in (body[:-2], body[:-1], body[:-2] + bytes(500), body + bytes(500), body + b"a trailer"):
        assert np.array_equal(stored(complete), stored(body))
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        cut = body[: int(len(body) * share)]
        for half in (cut, cut + bytes(len(body) - len(cut))):
            failure = process_image(half, SETTINGS).failure
            assert failure is not None
            assert (failure.error, failure.detail) == ("undecodable", CUT_SHORT)


@pytest.mark.parametrize("name", [name for name in FILES if name != "progressive"])
def test_an_end_marker_behind_half_a_picture_does_not_make_it_whole(name):
    body = FILES[name]()
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        failure = process_image(body[: int(len(body) * share)] + END, SETTINGS).failure
        assert failure is not None
        assert CUT_SHORT in failure.detail


def test_an_end_marker_behind_some_of_the_scans_does_not_make_them_all():
    body = FILES["progressive"]()
    last = body.rindex(b"\xff\xda")
    for cut in (body[:last] + END, body[: last // 2] + END):
        assert lacks_scans(cut)
        assert process_image(cut, SETTINGS).failure is not None
    assert not lacks_scans(body)


def test_a_restart_interval_that_is_the_last_is_no_whole_picture():
    body = FILES["restarts"]()
    for number in range(8):
        cut = body[: body.index(bytes([0xFF, 0xD0 + number]))]
        assert process_image(cut, SETTINGS).failure is not None
        assert process_image(cut + END, SETTINGS).failure is not None


def test_a_picture_that_is_grey_is_whole():
    body = pillow(np.full((300, 400, 3), 128, np.uint8), "JPEG")
    assert ends_in_grey(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR))
    assert not is_cut_short(body)
    assert stored(body).std() < 1
    assert closed_jpeg(body[:-2]) == body
