"""Makes the JPEG to store of a fetched body. Used by `images` and, for large pictures, by `picture_process`.

A plain picture is stored byte for byte as img2dataset would store it; large and unusual ones are first turned into a
BMP. The memory of all decodes in a process is bounded, and what may take long is left to a process that can be killed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from mmdata.config import Download
from mmdata.download.private_img2dataset import resizer
from mmdata.media.image_header import TIFF_STARTS, ImageHeader, lean_body, read_header
from mmdata.media.image_to_bmp import as_bmp, decoding_failure
from mmdata.media.memory_budget import MemoryBudget
from mmdata.web.failures import FetchError

MAX_DECODE_BYTES = 2 << 30  # of one picture; only `picture_process` decodes those over LARGE_DECODE_BYTES
ALL_DECODES_BYTES = 1 << 30  # of the pictures that the threads of a process decode at a time
LARGE_DECODE_BYTES = 200_000_000  # 16 million pixels of four channels in three copies
LARGE_PASSES = 300_000_000  # pixels x scans; a second or two
MAX_JPEG_SIDE_PX = 65_500  # of what an encoder of JPEG takes


_budget = MemoryBudget(ALL_DECODES_BYTES)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to store, or why there is none.

    Args:
        mime: of the body; None if its header cannot be read.
        original_size, size: (width, height) in pixels, upright, before and after resizing.
        data: the JPEG to store; None if there is a failure.
    """

    failure: FetchError | None
    mime: str | None = None
    original_size: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    data: bytes | None = None


DecodeElsewhere = Callable[[bytes, Download], Picture]


def make_picture(body: bytes, download: Download, decode_elsewhere: DecodeElsewhere | None = None) -> Picture:
    """Check a body, and make the JPEG to store.

    Args:
        decode_elsewhere: is called instead where decoding may take long or much memory; None: everything is done here.
    """
    if decode_elsewhere is not None and body.startswith(TIFF_STARTS):  # a TIFF's tables alone may take minutes
        return decode_elsewhere(body, download)
    header: ImageHeader | None = None
    try:
        lean = lean_body(body)
        header = read_header(lean)
        check_limits(header, download)
        needed_bytes = header.decode_bytes(download.image_size)
        is_large = needed_bytes > LARGE_DECODE_BYTES or header.passes > LARGE_PASSES
        if decode_elsewhere is not None and is_large:
            return decode_elsewhere(body, download)
        with _budget.reserved(needed_bytes):
            return _resized(lean, header, download)
    except FetchError as failure:
        return Picture(failure, header.mime if header else None)


def check_limits(header: ImageHeader, download: Download) -> None:
    """Refuse what is too large to be decoded or stored. Raises FetchError `bomb`."""
    width, height = header.upright_size
    if header.pixels > download.max_pixels:
        raise FetchError("bomb", f"{width} x {height} pixels is over download.max_pixels ({download.max_pixels})")
    if (needed_bytes := header.decode_bytes(download.image_size)) > MAX_DECODE_BYTES:
        limit = f"over the limit of {MAX_DECODE_BYTES >> 20} MiB"
        raise FetchError("bomb", f"{width} x {height} pixels take {needed_bytes >> 20} MiB to decode, {limit}")
    shrink = min(1.0, download.image_size / max(1, min(width, height)))
    if max(width, height) * shrink > MAX_JPEG_SIDE_PX:
        raise FetchError("bomb", f"{width} x {height} pixels: a stored JPEG's side ends at {MAX_JPEG_SIDE_PX} pixels")


def _resized(body: bytes, header: ImageHeader, download: Download) -> Picture:
    """The picture of a lean body. Raises FetchError `undecodable`, or `bomb` if memory is short."""
    bmp = as_bmp(body, header, header.reduction(download.image_size))
    file = io.BytesIO(body if bmp is None else bmp)
    del bmp  # the resizer's copy is enough
    data, width, height, _, _, error = resizer(download.image_size, download.encode_quality)(file)
    if error is not None:
        raise decoding_failure(str(error))
    return Picture(None, header.mime, header.upright_size, (width, height), data)
