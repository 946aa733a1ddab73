"""Leaves out the chunks of a PNG that do not change how its picture looks, before a decoder sees them.

Long texts, broken checksums of additional chunks, compressed texts that unpack to gigabytes, millions of empty chunks
and the further frames of an animation neither lose nor delay the picture then. Used by `image_header`.
"""

from __future__ import annotations

import struct
import zlib

from mmdata.web.failures import FetchError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000  # a file of the largest size that has chunks of 8 KiB has 2,500
MAX_UNPACKED_BYTES = 1_000_000  # of a colour profile or an orientation; Pillow's own limit is 1 MiB

_BEFORE_PALETTE = (b"iCCP", b"cICP", b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_AFTER_PALETTE = (b"tRNS",)
_ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_PLAIN = b"\0"


def lean_png(body: bytes) -> bytes:
    """A PNG with header, palette, pixels, transparency, colour profile and orientation, and nothing else.

    The chunks of the pixels are copied as they are, also if their checksum is wrong, because then they may be wrong,
    too. A last one that is cut short is closed, so that a decoder can say whether all pixels are there.

    Raises:
        FetchError: `bomb` if there are more chunks than an honest encoder writes.
    """
    kept: dict[bytes, bytes] = {}
    pixels: list[memoryview | bytes] = []
    view, place = memoryview(body), len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(body):
            break
        length, kind = int.from_bytes(body[place : place + 4], "big"), body[place + 4 : place + 8]
        end = place + 12 + length
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(view[place:end] if end <= len(body) else _chunk(kind, body[place + 8 :]))
        elif kind in (b"IHDR", b"PLTE"):
            kept.setdefault(kind, body[place:end])
        elif kind in _BEFORE_PALETTE + _AFTER_PALETTE and kind not in kept and _is_sound(kind, view[place:end]):
            kept[kind] = body[place:end]
        place = end
    else:
        raise FetchError("bomb", f"the PNG has over {MAX_CHUNKS} chunks")
    order = (b"IHDR", *_BEFORE_PALETTE, b"PLTE", *_AFTER_PALETTE)
    chunks = [kept[kind] for kind in order if kind in kept]
    return b"".join([SIGNATURE, *chunks, *pixels, _chunk(b"IEND", b"")])


def has_sound_pixels(body: bytes) -> bool:
    """Whether the checksums of a lean PNG's pixels are right; Pillow does not look, OpenCV does."""
    view, place = memoryview(body), len(SIGNATURE)
    while place + 12 <= len(body):
        end = place + 12 + int.from_bytes(body[place : place + 4], "big")
        if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return False
        place = end
    return True


def _is_sound(kind: bytes, chunk: memoryview) -> bool:
    """Whether an additional chunk is whole, matters, and unpacks to little."""
    data = bytes(chunk[8:-4])
    if len(chunk) < 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    if kind in (b"tEXt", b"zTXt", b"iTXt") and not data.startswith(_ORIENTATION_TEXTS):
        return False
    if len(data) > MAX_UNPACKED_BYTES:
        return False
    after_name = data.partition(_PLAIN)[2]
    if kind == b"iTXt" and after_name[:1] == _PLAIN:
        return True
    if kind == b"iTXt":
        return _unpacks_to_little(after_name[2:].split(_PLAIN, 2)[-1])
    return kind not in (b"iCCP", b"zTXt") or _unpacks_to_little(after_name[1:])


def _unpacks_to_little(packed: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        return len(unpacker.decompress(packed, MAX_UNPACKED_BYTES)) < MAX_UNPACKED_BYTES
    except zlib.error:
        return False


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
