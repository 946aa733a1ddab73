"""Every kind of file is stored as a second decoder shows it, and what cannot be stored has a reason."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from mmdata.config import Download
from mmdata.download import pictures
from mmdata.download.pictures import Picture, make_picture
from mmdata.media.image_header import read_header
from mmdata.web.failures import FetchError
from tests.support.encoded_images import SETTINGS, chunk, encoded, gradient, pillow, png_of_size, psnr_db, stored
from tests.support.odd_pictures import FILES, as_pillow_shows, bmp, exif_with, png, small


def pixels_of(picture: Picture) -> np.ndarray:
    assert picture.failure is None, picture.failure
    assert picture.data is not None
    return cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)


def reason(body: bytes, settings: Download = SETTINGS) -> str | None:
    failure = make_picture(body, settings).failure
    return None if failure is None else failure.error


@pytest.mark.parametrize("name", FILES)
def test_what_is_stored_is_what_a_second_decoder_shows(name):
    body = FILES[name]()
    expected = as_pillow_shows(body)
    picture = make_picture(body, SETTINGS)
    pixels = pixels_of(picture)
    assert picture.size == picture.original_size == (expected.shape[1], expected.shape[0])
    assert np.ptp(expected) > 60, "the picture has nothing to compare"
    assert psnr_db(cv2.blur(pixels, (5, 5)), cv2.blur(expected, (5, 5))) > 33
    assert np.abs(pixels.mean((0, 1)) - expected.mean((0, 1))).max() < 2


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_breaks_off_is_stored_whole_or_not_at_all(name):
    body = FILES[name]()
    whole = stored(body)
    for length in (len(body) // 3, len(body) * 4 // 5, *(len(body) - lost for lost in (1, 2, 4, 12, 30))):
        picture = make_picture(body[:length], SETTINGS)
        if picture.failure is None:
            assert psnr_db(pixels_of(picture), whole) > 45
        else:
            assert picture.failure.error in ("undecodable", "not_an_image")


ORIENTATIONS = {
    "SHORT": (lambda order: struct.pack(order + "H", 6), 3, 1),
    "LONG": (lambda order: struct.pack(order + "I", 6), 4, 1),
    "BYTE": (lambda _: b"\6", 1, 1),
    "signed SHORT": (lambda order: struct.pack(order + "h", 8), 8, 1),
    "text": (lambda _: b"6\0", 2, 2),
    "two SHORTs": (lambda order: struct.pack(order + "HH", 6, 6), 3, 2),
    "no such orientation": (lambda order: struct.pack(order + "H", 9), 3, 1),
    "turned over": (lambda order: struct.pack(order + "H", 7), 3, 1),
}


@pytest.mark.filterwarnings("ignore:Metadata Warning")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_size_and_pixels_follow_one_reader_of_the_orientation(name, order, form):
    if form == "AVIF" and name in ("BYTE", "text"):
        pytest.skip("Pillow cannot write it")
    value, kind, count = ORIENTATIONS[name]
    body = small(form, exif=exif_with(value(order), kind, count, order))
    expected = as_pillow_shows(body)
    picture = make_picture(body, SETTINGS)
    assert picture.size == picture.original_size == (expected.shape[1], expected.shape[0])
    assert psnr_db(cv2.blur(pixels_of(picture), (5, 5)), cv2.blur(expected, (5, 5))) > 33


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_a_tiff_is_turned_once(orientation):
    body = small("TIFF", tiffinfo={0x0112: orientation})
    expected = as_pillow_shows(body)
    picture = make_picture(body, SETTINGS)
    assert picture.original_size == (expected.shape[1], expected.shape[0])
    assert psnr_db(pixels_of(picture), expected) > 33


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_counts_where_there_is_none_in_exif(form):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    body = small(form, **({"tiffinfo": {700: xmp}} if form == "TIFF" else {"xmp": xmp}))
    if form == "PNG":
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        body = body[:33] + text + body[33:]
    expected = as_pillow_shows(body)
    picture = make_picture(body, SETTINGS)
    assert picture.size == picture.original_size == (150, 200) == (expected.shape[1], expected.shape[0])
    assert psnr_db(cv2.blur(pixels_of(picture), (5, 5)), cv2.blur(expected, (5, 5))) > 33


def test_a_large_turned_jpeg_of_another_colour_space_is_reduced_turned_and_converted():
    from tests.support.odd_pictures import PROFILES

    exif = exif_with(struct.pack(">H", 8), 3, 1, ">")
    body = pillow(gradient(1700, 1300), "JPEG", exif=exif, icc_profile=PROFILES["Adobe RGB"])
    whole = cv2.resize(as_pillow_shows(body), (256, 335), interpolation=cv2.INTER_AREA)
    assert psnr_db(stored(body), whole) > 36


def test_a_bmp_whose_transparency_is_zero_throughout_is_opaque():
    for body in (bmp(32), bmp(32, alpha=0), bmp(32, top_down=True)):
        assert abs(stored(body).mean() - gradient(200, 150).mean()) < 2


@pytest.mark.parametrize("colour", [0, 2])
def test_a_key_colour_of_sixteen_bits_is_transparent(colour):
    channels = 3 if colour else 1
    line = np.array([[40_000] * channels] * 50 + [[12_345] * channels] * 50, ">u2").tobytes()
    key = struct.pack(">H", 12_345) * channels
    pixels = stored(png([line] * 60, 100, 16, colour, chunk(b"tRNS", key)))
    assert abs(int(pixels[30, 10, 0]) - 156) < 3
    assert pixels[30, 80].min() > 250


@pytest.mark.parametrize(
    "body",
    [
        b"\0\0\1\0" + bytes(200),  # ICO
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        b"\0\0\0\x18ftypheic" + bytes(200),
        b"8BPS\0\1" + bytes(200),
        b"\xff\x0a" + bytes(200),  # JPEG XL
    ],
)
def test_formats_that_are_not_read_are_named_by_their_first_bytes(body):
    failure = make_picture(body, SETTINGS).failure
    assert failure is not None
    assert (failure.error, failure.detail.startswith("starts with b")) == ("not_an_image", True)


def test_light_of_high_dynamic_range_is_refused():
    body = small("PNG")
    for transfer, expected in ((16, "hdr"), (18, "hdr"), (13, None)):
        assert reason(body[:33] + chunk(b"cICP", bytes([9, transfer, 0, 1])) + body[33:]) == expected


@pytest.mark.parametrize("shape", [(3, 70_000), (70_000, 3), (300, 80_000)])
def test_a_side_that_no_jpeg_holds_is_refused(shape):
    body = encoded(np.full((*shape, 3), 200, np.uint8), ".png")
    picture = make_picture(body, SETTINGS)
    assert picture.failure is not None
    assert (picture.failure.error, picture.mime) == ("bomb", "image/png")
    assert "65500" in picture.failure.detail


def test_the_longest_side_that_a_jpeg_holds_is_stored():
    assert make_picture(encoded(np.zeros((2, 65_500, 3), np.uint8), ".png"), SETTINGS).size == (65_500, 2)


def test_what_a_decode_may_take_is_bounded_before_it_begins(monkeypatch):
    monkeypatch.setattr(pictures, "as_bmp", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr(pictures, "MAX_DECODE_BYTES", 1 << 30)
    picture = make_picture(png_of_size(9999, 9999), SETTINGS)
    assert picture.failure is not None
    assert picture.failure.error == "bomb"
    assert "take 1144 MiB to decode, over the limit of 1024 MiB" in picture.failure.detail


@pytest.mark.parametrize(
    ("body", "is_left"),
    [
        (pillow(gradient(), "JPEG"), False),
        (pillow(gradient(), "JPEG", progressive=True), False),
        (pillow(gradient(), "TIFF"), True),
        (png_of_size(6000, 4000), True),
        (pillow(gradient(5000, 3000), "JPEG"), False),
    ],
)
def test_only_what_may_take_long_is_left_to_the_process(body, is_left):
    left = []

    def elsewhere(body: bytes, download: Download) -> Picture:
        del download
        left.append(body)
        return Picture(FetchError("elsewhere", ""))

    make_picture(body, SETTINGS, elsewhere)
    assert bool(left) == is_left


def test_scans_count_towards_what_is_left_to_the_process():
    header = read_header(pillow(gradient(1000, 800), "JPEG", progressive=True))
    assert header.passes == 8_000_000
