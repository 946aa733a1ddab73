"""Plain POSIX (ustar) tar bytes: the same members give the same bytes, on any machine and at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Size = TypeVar("Size", int, np.ndarray)

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_NAME_BYTES = 100
MAX_SIZE = 8**11 - 1

_SIZE_AT, _SIZE_DIGITS = 124, 11
_CHECKSUM_AT, _CHECKSUM_DIGITS = 148, 6


def headers(names: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """The header blocks of plain files: mode 0644, owner and time 0.

    Args:
        sizes: int64, bytes of each file.

    Returns:
        uint8, one row of 512 a name.

    Raises:
        ValueError: a name is over 100 bytes, or a size over 8 GiB: ustar can't say it.
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
