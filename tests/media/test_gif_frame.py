"""A GIF is cut down to its first frame, whatever stands around it."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from mmdata.media.gif_frame import first_frame
from mmdata.web.failures import FetchError
from tests.support.encoded_images import gradient, pillow, psnr_db, stored
from tests.support.odd_pictures import film, transparent_gif

GIF = pillow(gradient(200, 150), "GIF")


@pytest.mark.parametrize("body", [GIF, film("GIF"), transparent_gif()])
def test_the_first_frame_stays_as_it_is(body):
    lean = first_frame(body)
    with Image.open(io.BytesIO(body)) as before, Image.open(io.BytesIO(lean)) as after:
        assert before.convert("RGBA").tobytes() == after.convert("RGBA").tobytes()
        assert after.n_frames == 1


def test_a_file_that_breaks_off_in_a_later_frame_is_stored():
    whole = film("GIF")
    cut = whole[: len(first_frame(whole)) + 2000]
    assert psnr_db(stored(cut), stored(whole)) > 60
    assert psnr_db(stored(GIF[:-1]), stored(GIF)) > 60


@pytest.mark.parametrize("filler", [b"!\xfe\1x\0" * 600_000, b"\0" * 600_000, b"!\xfe" + b"\1x" * 600_000 + b"\0"])
def test_millions_of_blocks_are_a_bomb(filler):
    with pytest.raises(FetchError, match="bomb"):
        first_frame(GIF[:781] + filler + GIF[781:])


def test_a_long_comment_delays_nothing():
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 70_000 + b"\0"
    assert len(first_frame(GIF[:781] + comment + GIF[781:])) == len(first_frame(GIF))


def test_what_the_frame_leaves_of_the_screen_is_white():
    body = bytearray(GIF)
    body[6:10] = (300).to_bytes(2, "little") + (200).to_bytes(2, "little")
    pixels = stored(bytes(body))
    assert pixels.shape == (200, 300, 3)
    assert pixels[155:].min() > 250
    assert pixels[:, 205:].min() > 250
    assert psnr_db(pixels[:145, :195], stored(GIF)[:145, :195]) > 40


def test_no_frame_is_no_picture():
    assert first_frame(GIF[:781] + b";") == GIF[:781]
    for length in range(0, 900, 7):
        first_frame(GIF[:length])
