"""Pictures of wide gamuts come to sRGB as browsers show them; those of sRGB keep every byte."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.download.images import process_image
from mmdata.media.colour_profile import MAX_PROFILE_BYTES
from tests.support.encoded_images import SETTINGS, chunk, pillow, stored
from tests.support.odd_pictures import PROFILES, cmyk_profile, grey_profile


def flat(colour: tuple[int, int, int], form: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    return pillow(np.full((120, 160, 3), colour[::-1], np.uint8), form, mode, **options)


WIDE = {
    # what is coded -> what sRGB shows of it, by the formulas of CSS Color 4
    ("Display P3", (184, 51, 42)): (201, 31, 30),
    ("Display P3", (82, 168, 58)): (31, 170, 31),
    ("Display P3", (216, 199, 70)): (221, 199, 23),
    ("Adobe RGB", (174, 54, 52)): (203, 50, 49),
    ("Adobe RGB", (128, 128, 128)): (127, 127, 127),
}


@pytest.mark.parametrize(("name", "coded"), WIDE)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_wide_colours_are_shown_in_srgb(name, coded, form):
    lossless = {"lossless": True} if form == "WEBP" else {}
    pixels = stored(flat(coded, form, icc_profile=PROFILES[name], **lossless))
    assert np.allclose(pixels[60, 80][::-1], WIDE[name, coded], atol=4)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    "profile",
    [
        PROFILES["sRGB"],
        b"",
        b"no profile" * 40,
        PROFILES["Adobe RGB"][:150],
        PROFILES["Adobe RGB"][:300],
        cmyk_profile(),
        grey_profile(1.0),
    ],
)
def test_srgb_and_what_is_no_profile_of_the_picture_change_no_byte(form, profile):
    plain = process_image(flat((184, 51, 42), form), SETTINGS).data
    assert process_image(flat((184, 51, 42), form, icc_profile=profile), SETTINGS).data == plain


def test_a_profile_of_many_megabytes_is_ignored():
    profile = PROFILES["Adobe RGB"] + bytes(MAX_PROFILE_BYTES)
    assert process_image(flat((184, 51, 42), "WEBP", icc_profile=profile), SETTINGS).data is not None


def test_grey_levels_are_brought_to_the_light_of_srgb():
    linear = stored(flat((55, 55, 55), "PNG", "L", icc_profile=grey_profile(1.0)))
    assert np.allclose(linear[60, 80], 128, atol=3)


def test_inks_are_shown_as_their_profile_says():
    with_profile = stored(flat((0, 0, 0), "JPEG", "CMYK", icc_profile=cmyk_profile()))
    assert with_profile.mean() > stored(flat((0, 0, 0), "JPEG", "CMYK")).mean() + 20


def test_code_points_of_a_png_come_before_its_profile():
    body = flat((184, 51, 42), icc_profile=PROFILES["Adobe RGB"])
    points = chunk(b"cICP", bytes([12, 13, 0, 1]))
    assert np.allclose(stored(body[:33] + points + body[33:])[60, 80][::-1], (201, 31, 30), atol=3)


def test_a_profile_of_an_avif_comes_before_its_code_points():
    body = bytearray(flat((184, 51, 42), "AVIF", quality=100, icc_profile=PROFILES["sRGB"]))
    if (place := body.find(b"colrnclx")) >= 0:
        body[place + 9] = 12
    assert np.allclose(stored(bytes(body))[60, 80][::-1], (184, 51, 42), atol=3)


def test_code_points_of_an_avif_are_read():
    body = bytearray(flat((184, 51, 42), "AVIF", quality=100))
    place = body.index(b"colrnclx") + 8
    assert body[place : place + 2] == b"\0\1"
    plain = stored(bytes(body))
    assert np.allclose(plain[60, 80][::-1], (184, 51, 42), atol=3)
    body[place + 1] = 12
    assert np.allclose(stored(bytes(body))[60, 80][::-1], (201, 31, 30), atol=5)
    body[place + 1], body[place + 3] = 9, 16
    failure = process_image(bytes(body), SETTINGS).failure
    assert failure is not None
    assert (failure.error, failure.status) == ("hdr", "refused")
