"""What is stored for a fetched body: upright, on white, in its own light, as img2dataset would store it."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdata.config import Download
from mmdata.download import images
from mmdata.download.images import process_image
from mmdata.media.image_header import read_header

SETTINGS = Download()


def gradient(width: int = 640, height: int = 480) -> np.ndarray:
    """A smooth BGR picture, darker to the left, so that turning it shows."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.stack([x, 0.5 * x + 0.25 * y, 0.8 * x], -1) * 255).astype(np.uint8)


def encoded(pixels: np.ndarray, ext: str, *options: int) -> bytes:
    return cv2.imencode(ext, pixels, list(options))[1].tobytes()


def pillow(pixels: np.ndarray, form: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).convert(mode).save(out, form, **options)
    return out.getvalue()


def stored(body: bytes, settings: Download = SETTINGS) -> np.ndarray:
    image = process_image(body, settings)
    assert image.failure is None, image.failure
    assert image.data is not None
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
    assert image.size == (pixels.shape[1], pixels.shape[0])
    return pixels


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - other.astype(float)) ** 2), 1e-9))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are missing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


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


@pytest.mark.parametrize("scale", [2, 3, 4, 9])
def test_large_jpegs_decoded_at_a_fraction_look_the_same(scale):
    large = gradient(340 * scale, 260 * scale)
    body = encoded(large, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98)
    whole = cv2.resize(large, (335, 256), interpolation=cv2.INTER_AREA)
    assert psnr_db(stored(body), whole) > 38
    assert process_image(body, SETTINGS).original_size == (340 * scale, 260 * scale)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("scale", [1, 3])
def test_exif_orientation_is_respected(orientation, form, scale):
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


def test_sixteen_bits_keep_their_light():
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
def test_what_is_no_image_is_said_to_be_none(body):
    image = process_image(body, SETTINGS)
    assert image.failure is not None
    assert (image.status, image.failure.error) == ("failed_to_resize", "not_an_image")
    assert (image.size_bytes, image.data) == (len(body), None)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_truncated_images_fail_rather_than_end_in_grey(form, share):
    body = pillow(gradient(), form)
    image = process_image(body[: int(len(body) * share)], SETTINGS)
    assert image.failure is not None
    assert image.status == "failed_to_resize"
    assert image.failure.error in ("undecodable", "not_an_image")


@pytest.mark.parametrize("size", [(40_000, 40_000), (65_500, 4_000), (1, 2**31 - 1), (12_000, 12_000)])
def test_a_bomb_is_refused_by_its_header(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    image = process_image(png_of_size(*size), SETTINGS)
    assert image.failure is not None
    assert (image.status, image.failure.error) == ("refused", "bomb")


def test_max_pixels_is_the_limit_and_not_pillows_own():
    assert process_image(encoded(gradient(), ".png"), Download(max_pixels=640 * 480)).failure is None
    image = process_image(encoded(gradient(), ".png"), Download(max_pixels=640 * 480 - 1))
    assert image.failure is not None
    assert image.failure.error == "bomb"


def test_headers_are_read_without_decoding(monkeypatch):
    body = pillow(gradient(), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("pixels were decoded"))
    header = read_header(body)
    assert (header.width, header.height, header.bits, header.mime) == (640, 480, 8, "image/png")


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


def test_stdout_stays_where_it_is_while_threads_resize():
    """img2dataset's own Resizer points descriptors 1 and 2 at /dev/null, and with threads may leave them there."""
    from concurrent.futures import ThreadPoolExecutor

    before = [os.fstat(handle).st_ino for handle in (1, 2)]
    body = encoded(gradient(), ".jpg")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: process_image(body, SETTINGS), range(64)))
    assert [os.fstat(handle).st_ino for handle in (1, 2)] == before


def test_img2dataset_is_untouched_for_others():
    images.load_img2dataset(SETTINGS)
    import img2dataset
    import img2dataset.resizer

    assert callable(img2dataset.download)
    assert img2dataset.resizer.SuppressStdoutStderr.__module__ == "img2dataset.resizer"
    assert sys.modules["img2dataset"] is img2dataset
