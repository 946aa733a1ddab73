"""What an image's header says, before anything is decoded."""

from __future__ import annotations

import cv2
import pytest
from PIL import Image

from mmdata.download.images import process_image
from mmdata.media.image_header import read_header
from tests.support.encoded_images import SETTINGS, gradient, pillow, png_of_size


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>404</body></html>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        bytes(range(256)) * 10,
    ],
)
def test_other_bodies_are_not_an_image(body):
    image = process_image(body, SETTINGS)
    assert image.failure is not None
    assert (image.status, image.failure.error) == ("failed_to_resize", "not_an_image")
    assert (image.size_bytes, image.data) == (len(body), None)


@pytest.mark.parametrize("size", [(40_000, 40_000), (65_500, 4_000), (1, 2**31 - 1), (12_000, 12_000)])
def test_a_bomb_is_refused_by_its_header(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    image = process_image(png_of_size(*size), SETTINGS)
    assert image.failure is not None
    assert (image.status, image.failure.error) == ("refused", "bomb")


def test_headers_are_read_without_decoding(monkeypatch):
    body = pillow(gradient(), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("pixels were decoded"))
    header = read_header(body)
    assert (header.width, header.height, header.bits, header.mime) == (640, 480, 8, "image/png")
