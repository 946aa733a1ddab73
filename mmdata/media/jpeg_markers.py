"""Walks the markers of a JPEG, in bounded time: how many scans it has, and whether it has all of them.

Nothing is decoded. Used by `image_header` and `image_to_bmp`. Follows ITU T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmdata.web.failures import FetchError

START, END = b"\xff\xd8", b"\xff\xd9"
MAX_SCANS = 100  # encoders that search for the best scans write up to 64; each scan costs a pass over all pixels
MAX_SEGMENTS = 2_000  # before the first scan; decoders need microseconds to skip each
MAX_SKIPPED_BYTES = 65_536  # padding and garbage between segments, which Pillow skips a byte at a time

_SCAN = b"\xff\xda"
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})
_NEXT_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # within a scan: neither a stuffed byte nor a restart


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """What the markers of a JPEG say.

    Args:
        scans: how many passes the decoder makes.
        has_many_scans: one scan alone is not the picture; the decoder holds all coefficients in memory at once.
        end: where the last end marker behind the first scan stands; -1 if there is none.
    """

    scans: int
    has_many_scans: bool
    end: int


NO_JPEG = JpegFacts(scans=1, has_many_scans=False, end=0)
"""What is to be known of a file of another format."""


def jpeg_facts(body: bytes) -> JpegFacts:
    """Read the markers of a JPEG.

    Raises:
        FetchError: `bomb` if there are more scans, segments or skipped bytes than an honest encoder writes.
    """
    frame, components = 0, 0
    for marker, start, _ in _segments(body):
        if marker in _FRAMES:
            frame, components = marker, _byte_at(body, start + 9)
        if marker == 0xDA:
            has_many = frame in _PROGRESSIVE_FRAMES or _byte_at(body, start + 4) < components
            return JpegFacts(_count_scans(body, start) if has_many else 1, has_many, body.rfind(END, start))
    return JpegFacts(0, False, -1)


def picture_end(body: bytes) -> int:
    """Where the first end marker behind the first scan stands, before a phone's further images; -1: nowhere."""
    return next((body.find(END, start) for marker, start, _ in _segments(body) if marker == 0xDA), -1)


def has_all_scans(body: bytes) -> bool:
    """Whether the scans of a progressive JPEG bring every coefficient of every component to its full precision."""
    missing_bits: dict[int, list[int]] = {}
    for header in _scan_headers(body):
        count = header[0]
        if len(header) < 2 * count + 4:
            return False
        first, last, shifts = header[2 * count + 1 : 2 * count + 4]
        for component in header[1 : 2 * count + 1 : 2]:
            bits = missing_bits.setdefault(component, [-1] * 64)
            bits[first : last + 1] = [shifts & 15] * (min(last, 63) - first + 1)
    components = next((_byte_at(body, start + 9) for marker, start, _ in _segments(body) if marker in _FRAMES), 0)
    return len(missing_bits) == components and not any(any(bits) for bits in missing_bits.values())


def _count_scans(body: bytes, first_scan: int) -> int:
    # The bytes of a scan marker may also stand elsewhere in the file, so this may be too many, but it is fast.
    scans = body.count(_SCAN, first_scan)
    if scans > MAX_SCANS and (scans := sum(1 for _ in _scan_headers(body))) > MAX_SCANS:
        raise FetchError("bomb", f"the JPEG has {scans} scans, more than {MAX_SCANS}")
    return scans


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments up to the first scan's header, which is included: their marker, start and end."""
    place, skipped, count = 2, 0, 0
    while (start := body.find(b"\xff", place)) >= 0 and start + 4 <= len(body):
        marker = body[start + 1]
        if marker in _WITHOUT_LENGTH:
            # 0xFF is padding; the second of its bytes may be the first of a marker
            following = start + (1 if marker == 0xFF else 2)
            skipped += following - place
            place = following
        else:
            skipped += start - place
            end = start + 2 + max(2, int.from_bytes(body[start + 2 : start + 4], "big"))
            yield marker, start, end
            if marker == 0xDA:
                return
            place, count = end, count + 1
        if skipped > MAX_SKIPPED_BYTES:
            raise FetchError("bomb", f"the JPEG has over {MAX_SKIPPED_BYTES} bytes of padding before its first scan")
        if count > MAX_SEGMENTS:
            raise FetchError("bomb", f"the JPEG has over {MAX_SEGMENTS} segments before its first scan")


def _scan_headers(body: bytes) -> Iterator[bytes]:
    """What the header of each scan holds, up to the picture's end."""
    place = next((start for marker, start, _ in _segments(body) if marker == 0xDA), len(body))
    while place + 4 < len(body):
        marker, end = body[place + 1], place + 2 + int.from_bytes(body[place + 2 : place + 4], "big")
        if marker == 0xDA:
            yield body[place + 4 : end] or b"\0"
        following = _NEXT_MARKER.search(body, max(end, place + 4))
        if following is None or following[0] == END:
            return
        place = following.start()


def _byte_at(body: bytes, place: int) -> int:
    return body[place] if place < len(body) else 0
