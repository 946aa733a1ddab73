"""Plain POSIX (ustar) tar bytes: the same members give the same bytes, on any machine and at any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

Size = TypeVar("Size", int, np.ndarray)

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_NAME_BYTES = 100
MAX_SIZE = 8**11 - 1


def header(name: str, size: int) -> bytes:
    """A member's header block: mode 0644, owner and time 0.

    Raises:
        ValueError: the name is over 100 bytes, or the size over 8 GiB: ustar can't say it.
    """
    encoded = name.encode("utf-8")
    if not 0 < len(encoded) <= MAX_NAME_BYTES:
        raise ValueError(f"{name!r}: a member's name has 1 to {MAX_NAME_BYTES} bytes")
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"{name}: {size} bytes do not fit into a ustar member")
    mode, owner, mtime = b"0000644\x00", b"0000000\x00", b"00000000000\x00"
    before = encoded.ljust(100, b"\x00") + mode + owner + owner + b"%011o\x00" % size + mtime
    link, magic, user_and_group, device, prefix = bytes(100), b"ustar\x00" + b"00", bytes(64), owner, bytes(167)
    after = b"0" + link + magic + user_and_group + device + device + prefix
    checksum = sum(before) + sum(after) + 8 * 0x20
    return before + b"%06o\x00 " % checksum + after


def padding(size: int) -> bytes:
    """The zeros that fill a member's last block."""
    return bytes(-size % BLOCK)


def padded(size: Size) -> Size:
    """The bytes that a member of this size takes, header and padding included: of one, or of an array of them."""
    return BLOCK + (size + (BLOCK - 1)) // BLOCK * BLOCK


def member(name: str, data: bytes) -> Iterator[bytes]:
    """The pieces of a member: header, data, padding."""
    yield header(name, len(data))
    yield data
    if fill := padding(len(data)):
        yield fill


def archive_size(sizes: Iterable[int]) -> int:
    """The bytes of a whole archive with members of these sizes."""
    return sum(padded(size) for size in sizes) + len(END)
