"""What is stored for a fetched body: upright, on white, in its own light, as img2dataset would store it."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mmdata.config import Download
from mmdata.download.images import process_image
from tests.support.encoded_images import SETTINGS, encoded, gradient, pillow, stored


@pytest.mark.parametrize("ext", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("size", [(640, 480), (300, 400), (120, 90)])
def test_plain_images_are_stored_as_img2dataset_stores_them(ext, size):
    from img2dataset.resizer import Resizer

    body = encoded(gradient(*size), ext)
    peer = Resizer(256, "keep_ratio", True, encode_quality=95, encode_format="jpg")
    data, width, height, original_width, original_height, error = peer(io.BytesIO(body))
    ours = process_image(body, SETTINGS)
    assert error is None
    assert ours.data == data
    assert (ours.size, ours.original_size) == ((width, height), (original_width, original_height))


@pytest.mark.parametrize("ext", [".png", ".webp"])
@pytest.mark.parametrize("transparent", [True, False])
def test_transparency_is_blended_as_img2dataset_blends_it(ext, transparent):
    from img2dataset.resizer import Resizer

    rng = np.random.default_rng(0)
    alpha = (
        rng.integers(0, 256, (400, 500, 1), dtype=np.uint8) if transparent else np.full((400, 500, 1), 255, np.uint8)
    )
    body = encoded(np.concatenate([rng.integers(0, 256, (400, 500, 3), dtype=np.uint8), alpha], -1), ext)
    peer = Resizer(256, "keep_ratio", True, encode_quality=95, encode_format="jpg")
    assert process_image(body, SETTINGS).data == peer(io.BytesIO(body))[0]


def test_the_shorter_side_is_image_size_and_nothing_is_enlarged():
    assert stored(encoded(gradient(640, 480), ".jpg")).shape == (256, 341, 3)
    assert stored(encoded(gradient(480, 640), ".png")).shape == (341, 256, 3)
    assert stored(encoded(gradient(200, 100), ".png")).shape == (100, 200, 3)
    assert stored(encoded(gradient(1, 1), ".png")).shape == (1, 1, 3)
    assert stored(encoded(gradient(3000, 2), ".png")).shape == (2, 3000, 3)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_truncated_images_fail_rather_than_end_in_grey(form, share):
    body = pillow(gradient(), form)
    image = process_image(body[: int(len(body) * share)], SETTINGS)
    assert image.failure is not None
    assert image.status == "failed_to_resize"
    assert image.failure.error in ("undecodable", "not_an_image")


def test_max_pixels_is_the_limit_rather_than_that_of_pillow():
    assert process_image(encoded(gradient(), ".png"), Download(max_pixels=640 * 480)).failure is None
    image = process_image(encoded(gradient(), ".png"), Download(max_pixels=640 * 480 - 1))
    assert image.failure is not None
    assert image.failure.error == "bomb"


def test_random_damage_never_raises():
    rng = np.random.default_rng(0)
    bodies = [pillow(gradient(300, 280), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]
    statuses = set()
    for body in bodies:
        for _ in range(15):
            damaged = bytearray(body)
            for place in rng.integers(0, min(len(body), 2000), 12):
                damaged[place] = rng.integers(0, 256)
            statuses.add(process_image(bytes(damaged), SETTINGS).status)
    assert "failed_to_resize" in statuses
    assert statuses <= {"success", "failed_to_resize", "refused"}


def test_the_same_body_gives_the_same_bytes():
    for body in (encoded(gradient(), ".jpg"), encoded(gradient(2000, 1500), ".jpg"), pillow(gradient(), "GIF")):
        assert process_image(body, SETTINGS).data == process_image(body, SETTINGS).data
