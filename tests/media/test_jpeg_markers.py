"""The markers of a JPEG: its scans are counted, and floods of segments end early."""

from __future__ import annotations

import io

import cv2
import pytest
from PIL import Image

from mmdata.media.image_header import read_header
from mmdata.media.jpeg_markers import END, MAX_SCANS, has_all_scans, jpeg_facts, picture_end
from mmdata.web.failures import FetchError
from tests.support.cpu_time import least_cpu_s
from tests.support.encoded_images import encoded, gradient, pillow

BASELINE = pillow(gradient(), "JPEG")
PROGRESSIVE = pillow(gradient(), "JPEG", progressive=True)
SCANS_AT = [place for place in range(len(PROGRESSIVE)) if PROGRESSIVE[place : place + 2] == b"\xff\xda"]


def with_more_scans(count: int) -> bytes:
    """The last scan again and again; each is a pass over all pixels for a decoder."""
    return PROGRESSIVE[:-2] + PROGRESSIVE[SCANS_AT[-1] : -2] * count + END


def test_scans_are_counted():
    assert (jpeg_facts(BASELINE).scans, jpeg_facts(BASELINE).has_many_scans) == (1, False)
    assert (jpeg_facts(PROGRESSIVE).scans, jpeg_facts(PROGRESSIVE).has_many_scans) == (len(SCANS_AT), True)
    assert jpeg_facts(with_more_scans(20)).scans == len(SCANS_AT) + 20
    assert jpeg_facts(BASELINE[:-2]).end == -1


def test_too_many_scans_are_a_bomb_by_the_header():
    assert read_header(with_more_scans(MAX_SCANS - len(SCANS_AT))).jpeg.scans == MAX_SCANS
    with pytest.raises(FetchError, match=f"bomb: the JPEG has {MAX_SCANS + 1} scans"):
        read_header(with_more_scans(MAX_SCANS - len(SCANS_AT) + 1))


def test_scans_of_further_pictures_and_thumbnails_do_not_count():
    out = io.BytesIO()
    first = Image.fromarray(gradient())
    first.save(out, "MPO", save_all=True, append_images=[first] * 200)
    assert read_header(out.getvalue()).jpeg.scans == 1
    thumbnail = b"\xff\xe1" + (2 + 3000).to_bytes(2, "big") + b"\xff\xda" * 1500
    body = PROGRESSIVE[:2] + thumbnail + PROGRESSIVE[2:-2] + END + b"\xff\xda" * 1500
    assert read_header(body).jpeg.scans <= MAX_SCANS or pytest.fail("junk behind the end was counted")


@pytest.mark.parametrize(
    "flood", [b"\xff\xfe\0\2" * 500_000, b"\xff" * 2_000_000, b"junk" * 500_000, b"\xff\0" * 1_000_000]
)
def test_floods_before_the_first_scan_are_a_bomb(flood):
    def read() -> None:
        with pytest.raises(FetchError, match="bomb"):
            read_header(BASELINE[:2] + flood + BASELINE[2:])

    assert least_cpu_s(read) < 0.5


def test_scans_that_are_missing_altogether_are_noticed():
    assert has_all_scans(PROGRESSIVE)
    assert not any(has_all_scans(PROGRESSIVE[:place] + END) for place in SCANS_AT)
    assert has_all_scans(encoded(gradient(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert has_all_scans(pillow(gradient(), "JPEG", "L", progressive=True))


def test_the_end_is_that_of_the_first_picture():
    assert picture_end(BASELINE + BASELINE) == len(BASELINE) - 2
    assert picture_end(BASELINE[:-2]) == -1


def test_any_piece_of_a_file_is_read():
    for body in (BASELINE, PROGRESSIVE):
        for length in range(2, len(body), 97):
            jpeg_facts(body[:length])
            has_all_scans(body[:length])
