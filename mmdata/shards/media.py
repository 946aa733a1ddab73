"""Reading stored media out of the slices' tars: one range read a sample, in the order in which they lie."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.publish import is_local


def read_media(frame: pl.DataFrame) -> dict[str, bytes]:
    """The stored bytes of samples, by uid.

    Args:
        frame: uid, part, tar, offset, length; rows without an offset are passed over, copies read once.

    Raises:
        DataError: a tar is missing or shorter than the media table says; names it and the remedy.
    """
    wanted = frame.filter(pl.col("offset").is_not_null()).unique("uid").sort("tar", "offset")
    found: dict[str, bytes] = {}
    for (name, part), group in wanted.group_by("tar", "part", maintain_order=True):
        tar = UPath(str(name))
        uids = group["uid"].to_list()
        ranges = list(group.select("offset", "length").iter_rows())
        try:
            pieces = _local(Path(tar.path), ranges) if is_local(tar) else _remote(tar, ranges)
        except (OSError, EOFError) as error:
            raise DataError(f"{tar}: {error}. Remedy: materialise media for {part} again.") from error
        found.update(zip(uids, pieces, strict=True))
    return found


def _local(path: Path, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
    handle = os.open(path, os.O_RDONLY)
    try:
        pieces = [os.pread(handle, length, offset) for offset, length in ranges]
    finally:
        os.close(handle)
    return _whole(pieces, ranges)


def _remote(tar: UPath, ranges: list[tuple[int, int]]) -> list[bytes]:
    starts, ends = [offset for offset, _ in ranges], [offset + length for offset, length in ranges]
    return _whole(tar.fs.cat_ranges([tar.path] * len(ranges), starts, ends), ranges)


def _whole(pieces: list[bytes], ranges: Iterable[tuple[int, int]]) -> list[bytes]:
    for piece, (offset, length) in zip(pieces, ranges, strict=True):
        if len(piece) != length:
            raise EOFError(f"{len(piece)} bytes at offset {offset} where {length} should be")
    return pieces
