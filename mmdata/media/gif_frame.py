"""Cuts a GIF down to its first frame, before a decoder sees it. Used by `image_header`.

Comments without end and thousands of frames delay nothing then, and a file that breaks off in a later frame, or lacks
its end, is no loss.
"""

from __future__ import annotations

from mmdata.web.failures import FetchError

MAX_BLOCKS = 500_000  # a file of the largest size has 80,000 blocks of 255 bytes

_EXTENSION, _IMAGE, _END = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9


def first_frame(body: bytes) -> bytes:
    """The GIF with its screen, palettes, transparency and first frame, and nothing else.

    Raises:
        FetchError: `bomb` if there are more blocks than an honest encoder writes.
    """
    place = 13 + _palette_bytes(body, 10)
    head, control = body[:place], b""
    blocks = 0
    while place < len(body) and body[place] != _END:
        start, kind = place, body[place]
        if kind == _IMAGE:
            place += 11 + _palette_bytes(body, place + 9)
        elif kind == _EXTENSION:
            place += 2
        else:  # a byte that means nothing; decoders skip it
            place -= 1
        while kind in (_IMAGE, _EXTENSION) and place < len(body) and (length := body[place]):
            place += length + 1
            blocks += 1
        place += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise FetchError("bomb", f"the GIF has over {MAX_BLOCKS} blocks")
        if kind == _IMAGE:
            return b"".join([head, control, body[start:place], bytes([_END])])
        if kind == _EXTENSION and body[start + 1 : start + 2] == bytes([_GRAPHIC_CONTROL]):
            control = body[start:place]
    return head


def _palette_bytes(body: bytes, flags_at: int) -> int:
    """The size of the palette that the flags at a place announce."""
    flags = body[flags_at] if flags_at < len(body) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
