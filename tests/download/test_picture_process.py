"""Large and suspicious pictures: killed when late, bounded in memory, and the process starts anew."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdata.config import Download
from mmdata.download import picture_process
from mmdata.download.images import process_image
from mmdata.download.picture_process import make_in_process
from mmdata.download.pictures import make_picture
from tests.support.encoded_images import SETTINGS, encoded, gradient, pillow


@pytest.fixture(scope="module", autouse=True)
def _process_is_closed() -> Iterator[None]:
    yield
    picture_process.close()


def test_the_process_makes_what_this_process_makes():
    for body in (pillow(gradient(), "JPEG"), pillow(gradient(), "GIF"), pillow(gradient(), "TIFF"), b"no picture"):
        here, there = make_picture(body, SETTINGS), make_in_process(body, SETTINGS)
        assert (here.data, here.size, here.original_size, here.mime) == (
            there.data,
            there.size,
            there.original_size,
            there.mime,
        )
        assert str(here.failure) == str(there.failure)


def test_a_late_picture_is_killed_and_the_next_one_is_made():
    slow = pillow(np.zeros((6000, 6000, 3), np.uint8), "JPEG", progressive=True)
    last = slow.rindex(b"\xff\xda")
    slow = slow[:-2] + slow[last:-2] * 80 + slow[-2:]
    assert len(slow) < 500_000
    make_in_process(pillow(gradient(), "TIFF"), SETTINGS)  # the time of its imports is not this test's
    started = time.monotonic()
    image = process_image(slow, Download(decode_timeout_s=0.5))
    assert time.monotonic() - started < 3
    assert image.failure is not None
    assert (image.failure.error, image.failure.may_pass) == ("decode_timeout", True)
    assert "download.decode_timeout_s (0.5 s)" in image.failure.detail
    assert process_image(pillow(gradient(), "TIFF"), SETTINGS).failure is None


def test_a_process_that_dies_takes_one_picture_with_it():
    make_in_process(pillow(gradient(), "TIFF"), SETTINGS)
    pid = picture_process._process.pid
    assert pid is not None
    slow = encoded(np.zeros((9000, 9000, 3), np.uint8), ".png", cv2.IMWRITE_PNG_COMPRESSION, 1)
    threading.Timer(0.15, lambda: os.kill(pid, signal.SIGSEGV)).start()
    failure = make_in_process(slow, SETTINGS).failure
    assert failure is not None
    assert (failure.error, failure.may_pass) == ("decoder_crashed", True)
    assert make_in_process(pillow(gradient(), "TIFF"), SETTINGS).failure is None


@pytest.mark.slow
def test_a_transparent_picture_of_a_hundred_million_pixels_stays_in_bounds():
    """It took 2.1 GB, in the fetching process."""
    pixels = np.zeros((9999, 9999, 4), np.uint8)
    pixels[:, :5000] = (10, 200, 30, 120)
    body = encoded(pixels, ".png", cv2.IMWRITE_PNG_COMPRESSION, 1)
    picture_process.close()
    image = process_image(body, Download(decode_timeout_s=300))
    assert image.failure is None
    status = Path(f"/proc/{picture_process._process.pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 1_500_000


def test_more_memory_than_the_limit_is_a_bomb():
    """The process really runs out of memory: its limit is lowered while it runs."""
    make_in_process(pillow(gradient(), "TIFF"), SETTINGS)
    pid = picture_process._process.pid
    assert pid is not None
    used_bytes = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used_bytes + 40_000_000
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    for body in (
        encoded(np.zeros((6000, 6000, 3), np.uint8), ".png", cv2.IMWRITE_PNG_COMPRESSION, 1),
        pillow(np.zeros((6000, 6000, 3), np.uint8), "GIF"),
        encoded(np.zeros((6000, 6000, 4), np.uint8), ".png", cv2.IMWRITE_PNG_COMPRESSION, 1),
    ):
        failure = make_in_process(body, SETTINGS).failure
        assert failure is not None
        assert failure.error == "bomb", failure
    picture_process.close()
