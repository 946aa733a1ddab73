"""Plain POSIX (ustar) tar bytes: the same members give the same bytes, on any machine and at any time.

Python's `tarfile` obeys hostile archives: it expands a sparse member of a few bytes into gigabytes of zeros, and
recurses through extended headers. Here a header is 512 bytes with a name and a size; others are marked as not plain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TypeVar

import numpy as np

Size = TypeVar("Size", int, np.ndarray)

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_NAME_BYTES = 100
MAX_SIZE = 8**11 - 1

_SIZE_AT, _SIZE_DIGITS = 124, 11
_CHECKSUM_AT, _CHECKSUM_DIGITS = 148, 6
_TYPE_AT, _LINK_AT, _MAGIC_AT, _PREFIX_AT = 156, 157, 257, 345


def headers(names: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """The header blocks of plain files: mode 0644, owner and time 0.

    Args:
        sizes: int64, bytes of each file.

    Returns:
        uint8, one row of 512 a name.

    Raises:
        ValueError: a name is over 100 bytes, or a size over 8 GiB: more than ustar can hold.
    """
    encoded = [name.encode("utf-8") for name in names]
    for name, raw, size in zip(names, encoded, sizes.tolist(), strict=True):
        if not 0 < len(raw) <= MAX_NAME_BYTES:
            raise ValueError(f"{name!r}: a member's name has 1 to {MAX_NAME_BYTES} bytes")
        if not 0 <= size <= MAX_SIZE:
            raise ValueError(f"{name}: {size} bytes do not fit into a ustar member")
    blocks = np.tile(_TEMPLATE, (len(encoded), 1))
    blocks[:, :MAX_NAME_BYTES] = (
        np.array(encoded, dtype=f"S{MAX_NAME_BYTES}").view(np.uint8).reshape(-1, MAX_NAME_BYTES)
    )
    blocks[:, _SIZE_AT : _SIZE_AT + _SIZE_DIGITS] = _octal(sizes, _SIZE_DIGITS)
    checksums = blocks.sum(axis=1, dtype=np.int64)  # the template holds spaces where the checksum will stand
    blocks[:, _CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_DIGITS] = _octal(checksums, _CHECKSUM_DIGITS)
    blocks[:, _CHECKSUM_AT + _CHECKSUM_DIGITS] = 0
    return blocks


class BrokenTar(ValueError):
    """A file that is not a whole tar; the text names the byte of the error."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One header of an archive.

    Args:
        name: from the header's name field; longer names (in two fields) are not joined.
        header_at: byte of the header in the archive.
        size: bytes of data, all of which are in the archive.
        is_plain: a file as `headers` writes it: no link, device, sparse file, extended header or two-field name.
    """

    name: str
    header_at: int
    size: int
    is_plain: bool

    @property
    def data_at(self) -> int:
        return self.header_at + BLOCK


def entries(file: IO[bytes]) -> Iterator[Entry]:
    """The headers of a tar, in order. No link is followed and no data is read.

    Raises:
        BrokenTar: a header is damaged, or its size is more than the bytes that are left.
    """
    end = file.seek(0, 2)
    at = 0
    while at + BLOCK <= end:
        file.seek(at)
        block = file.read(BLOCK)
        if not any(block):
            return
        entry = _entry(block, at)
        if entry.size > end - entry.data_at:
            raise BrokenTar(f"{entry.name!r} says {entry.size} bytes at byte {at}, and {end - entry.data_at} are left")
        yield entry
        at += padded(entry.size)


def _entry(block: bytes, at: int) -> Entry:
    checksum = block[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_DIGITS + 2].strip(b"\0 ")
    size = block[_SIZE_AT : _SIZE_AT + _SIZE_DIGITS + 1].strip(b"\0 ")
    filled = block[:_CHECKSUM_AT] + b" " * 8 + block[_TYPE_AT:]
    if block[_MAGIC_AT : _MAGIC_AT + 5] != b"ustar" or not _is_octal(checksum) or int(checksum, 8) != sum(filled):
        raise BrokenTar(f"no tar header at byte {at}")
    name = block[:MAX_NAME_BYTES].rstrip(b"\0").decode("utf-8", "replace")
    if not _is_octal(size):  # GNU's binary sizes: 8 GiB and more, or less than nothing
        raise BrokenTar(f"{name!r} at byte {at} has no size of 11 octal digits")
    plain = block[_TYPE_AT] in b"0\0" and not any(block[_LINK_AT:_MAGIC_AT]) and not any(block[_PREFIX_AT:])
    return Entry(name, at, int(size, 8), plain)


def _is_octal(digits: bytes) -> bool:
    return bool(digits) and not digits.strip(b"01234567")


def padded(size: Size) -> Size:
    """The bytes that a member of this size takes, header and padding included: of one, or of an array of them."""
    return BLOCK + (size + (BLOCK - 1)) // BLOCK * BLOCK


def _octal(values: np.ndarray, digits: int) -> np.ndarray:
    shifts = 3 * np.arange(digits - 1, -1, -1, dtype=np.int64)
    return ((values[:, None] >> shifts) & 7) + ord("0")


def _template() -> np.ndarray:
    mode, owner, size, mtime = b"0000644\x00", b"0000000\x00", bytes(12), b"00000000000\x00"
    link, magic, user_and_group, prefix = bytes(100), b"ustar\x00" + b"00", bytes(64), bytes(167)
    before = bytes(MAX_NAME_BYTES) + mode + owner + owner + size + mtime
    after = b"0" + link + magic + user_and_group + owner + owner + prefix
    return np.frombuffer(before + b" " * 8 + after, np.uint8)


_TEMPLATE = _template()
