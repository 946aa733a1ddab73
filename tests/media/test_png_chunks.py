"""Chunks that do not change a PNG's picture neither lose nor delay it."""

from __future__ import annotations

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdata.media.png_chunks import SIGNATURE, has_sound_pixels, lean_png
from mmdata.web.failures import FetchError
from tests.support.cpu_time import least_cpu_s
from tests.support.encoded_images import chunk, encoded, gradient, stored
from tests.support.odd_pictures import PROFILES, exif_with, film, rgba

PNG = encoded(gradient(400, 300), ".png")
_packer = zlib.compressobj(9)
_HEAD = _packer.compress(b"") + _packer.flush(zlib.Z_FULL_FLUSH)
TEN_MEGABYTES = _packer.compress(bytes(10_000_000)) + _packer.flush(zlib.Z_FULL_FLUSH)
UNPACKS_TO_A_GIGABYTE = _HEAD + TEN_MEGABYTES * 100


def with_chunks(*chunks: bytes, body: bytes = PNG) -> bytes:
    return body[:33] + b"".join(chunks) + body[33:]


def wrong_sum(kind: bytes, data: bytes) -> bytes:
    return chunk(kind, data)[:-4] + b"\1\2\3\4"


@pytest.mark.parametrize(
    "chunks",
    [
        (chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),),
        (chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"x" * 3_000_000),),
        (chunk(b"zTXt", b"Comment\0\0" + UNPACKS_TO_A_GIGABYTE),),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + UNPACKS_TO_A_GIGABYTE),),
        (chunk(b"iCCP", b"p\0\0" + UNPACKS_TO_A_GIGABYTE),),
        (wrong_sum(b"tEXt", b"Comment\0x"),),
        (wrong_sum(b"pHYs", bytes(9)),),
        (wrong_sum(b"iCCP", b"p\0\0" + zlib.compress(PROFILES["Adobe RGB"])),),
        (wrong_sum(b"eXIf", exif_with(b"\6\0", 3, 1, "<")[6:]),),
        (wrong_sum(b"tRNS", bytes(6)),),
        (chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"cHRM", bytes(32))),
    ],
)
def test_a_good_picture_with_a_bad_chunk_is_stored_as_without_it(chunks):
    started = time.monotonic()
    assert np.array_equal(stored(with_chunks(*chunks)), stored(PNG))
    assert time.monotonic() - started < 5


def test_what_changes_the_picture_is_kept():
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(PROFILES["Adobe RGB"]))
    exif = chunk(b"eXIf", exif_with(b"\6\0", 3, 1, "<")[6:])
    lean = lean_png(with_chunks(profile, chunk(b"tIME", bytes(7)))[:-12] + exif + PNG[-12:])
    with Image.open(io.BytesIO(lean)) as image:
        assert image.info["icc_profile"] == PROFILES["Adobe RGB"]
        assert image.info["exif"].endswith(exif[8:-4])
    assert b"tIME" not in lean
    assert stored(lean).shape == (341, 256, 3)


@pytest.mark.parametrize("body", [PNG, rgba("PNG"), film("PNG")])
def test_the_pixels_of_the_default_image_stay(body):
    lean = lean_png(body)
    with Image.open(io.BytesIO(body)) as before, Image.open(io.BytesIO(lean)) as after:
        assert before.tobytes() == after.tobytes()
        assert getattr(after, "n_frames", 1) == 1


@pytest.mark.parametrize("lost", [1, 4, 8, 12, 13, 16])
def test_a_file_that_lacks_only_what_follows_its_pixels_is_stored(lost):
    assert np.array_equal(stored(PNG[:-lost]), stored(PNG))


def test_a_wrong_checksum_of_pixels_is_told():
    body = bytearray(lean_png(PNG))
    assert has_sound_pixels(bytes(body))
    body[body.index(b"IDAT") + 600] ^= 1
    assert not has_sound_pixels(bytes(body))


def test_millions_of_chunks_are_a_bomb():
    with pytest.raises(FetchError, match="bomb"):
        lean_png(with_chunks(chunk(b"abCd", b"") * 100_001))


@pytest.mark.parametrize("size", [(10, 10), (400, 300)])
def test_what_unpacks_behind_the_last_pixel_is_not_unpacked(size):
    """OpenCV unpacks it to the end: 16 s for a file of 4 MB."""
    width, height = size
    packed = _HEAD + TEN_MEGABYTES * 300
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = SIGNATURE + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert stored(body).max() == 0
    assert least_cpu_s(lambda: stored(body)) < 2


def test_a_large_photograph_is_the_same_by_both_decoders():
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3), np.uint8)
    body = encoded(noise, ".png")
    assert len(body) > 1_000_000
    from img2dataset.resizer import Resizer

    from mmdata.download.images import process_image
    from tests.support.encoded_images import SETTINGS

    peer = Resizer(256, "keep_ratio", True, encode_quality=95, encode_format="jpg")
    assert process_image(body, SETTINGS).data == peer(io.BytesIO(body))[0]
    assert cv2.imdecode(np.frombuffer(lean_png(body), np.uint8), 1).tobytes() == noise.tobytes()
