"""Tells JPEGs that lack only their end marker from those that lack a part of the picture. Used by `image_to_bmp`.

Decoders paint what is missing grey, and report it in a warning that no binding passes on. Therefore a file in doubt is
decoded twice, with different data behind its end: if both pictures are the same, nothing of the picture was missing.
"""

from __future__ import annotations

import random

import numpy as np

from mmdata.media.jpeg_markers import END, has_all_scans, jpeg_facts, picture_end
from mmdata.web.failures import FetchError

CUT_SHORT = "the file breaks off before its picture is complete"
_ZEROS_OF_A_LOST_TAIL = 16  # so many zeros are no picture, but a part that was reserved on a disk and never written
_GREY = (127, 128)  # what decoders paint; 127 where Pillow inverts a CMYK file
_CORNER_PX = 8


def _noise() -> bytes:
    """Bytes that mean something else than zeros in any Huffman code, with restart markers for files that have them."""
    draw = random.Random(1)
    pieces = [bytes(draw.randrange(1, 255) for _ in range(64)) + bytes([0xFF, 0xD0 + number]) for number in range(8)]
    return b"".join(pieces * 4)


_OTHER_TAIL = _noise() + END


def closed_jpeg(body: bytes) -> bytes:
    """A JPEG without an end marker, closed by one.

    Raises:
        FetchError: `undecodable` if a part of its picture is missing, too.
    """
    data = body.rstrip(b"\0")
    data = (data if len(body) - len(data) > _ZEROS_OF_A_LOST_TAIL else body).rstrip(b"\xff")
    if lacks_scans(data) or _hangs_on_its_tail(data):
        raise FetchError("undecodable", CUT_SHORT)
    return data + END


def ends_in_grey(pixels: np.ndarray) -> bool:
    """Whether the last pixels of the last row are what decoders paint where data is missing; cheap to ask."""
    return bool(np.isin(pixels[-1, -_CORNER_PX:], _GREY).all())


def is_cut_short(body: bytes) -> bool:
    """Whether data is missing before the end marker of a JPEG, by decoding it twice."""
    return _hangs_on_its_tail(body[: picture_end(body)])


def lacks_scans(body: bytes) -> bool:
    """Whether scans of a JPEG are missing altogether."""
    return jpeg_facts(body).has_many_scans and not has_all_scans(body)


def _hangs_on_its_tail(data: bytes) -> bool:
    import cv2

    first, second = (
        cv2.imdecode(np.frombuffer(data.rstrip(b"\xff") + tail, np.uint8), cv2.IMREAD_UNCHANGED)
        for tail in (END, _OTHER_TAIL)
    )
    return first is None or second is None or not np.array_equal(first, second)
