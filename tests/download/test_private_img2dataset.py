"""img2dataset's modules are loaded privately: its other users and our file descriptors notice nothing."""

from __future__ import annotations

import os
import sys

from mmdata.download import images
from mmdata.download.images import process_image
from tests.support.encoded_images import SETTINGS, encoded, gradient


def test_stdout_stays_where_it_is_while_threads_resize():
    """img2dataset's own Resizer points descriptors 1 and 2 at /dev/null, and with threads may leave them there."""
    from concurrent.futures import ThreadPoolExecutor

    before = [os.fstat(handle).st_ino for handle in (1, 2)]
    body = encoded(gradient(), ".jpg")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: process_image(body, SETTINGS), range(64)))
    assert [os.fstat(handle).st_ino for handle in (1, 2)] == before


def test_other_importers_get_img2dataset_unchanged():
    images.load_img2dataset(SETTINGS)
    import img2dataset
    import img2dataset.resizer

    assert callable(img2dataset.download)
    assert img2dataset.resizer.SuppressStdoutStderr.__module__ == "img2dataset.resizer"
    assert sys.modules["img2dataset"] is img2dataset
