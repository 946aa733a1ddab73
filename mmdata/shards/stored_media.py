"""Reads stored media from the tars of the slices, in the order of their offsets.

The members of a clip are consecutive in the tar and in the shard, so they are read at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.atomic import is_local
from mmdata.storage.tar import padded

Range = tuple[int, int, int]
"""Offset in the tar, length, and place in the buffer; bytes."""

REMOTE_BYTES = 32_000_000  # most bytes requested from an object store at once


def read_media(frame: pl.DataFrame, buffer: memoryview) -> None:
    """Read the stored bytes of samples to their places in a buffer.

    Args:
        frame: part, tar, offset, length, place (in the buffer), bytes; rows without an offset are skipped. Padding
            and headers between members that are read at once are read with them.

    Raises:
        DataError: a tar is missing, or shorter than the media table says.
    """
    wanted = frame.filter(pl.col("offset").is_not_null()).sort("tar", "offset", "place")
    for (name, part), group in wanted.group_by("tar", "part", maintain_order=True):
        tar = UPath(str(name))
        ranges = list(_joined(group.select("offset", "length", "place").iter_rows()))
        try:
            if is_local(tar):
                _read_local(Path(tar.path), ranges, buffer)
            else:
                _read_remote(tar, ranges, buffer)
        except (FileNotFoundError, EOFError) as error:
            raise DataError(f"{tar}: {error}. Remedy: materialise media for {part} again.") from error


def _joined(members: Iterable[Range]) -> Iterator[Range]:
    """Join ranges that are one header apart both in the tar and in the buffer."""
    held: Range | None = None
    for offset, length, place in members:
        if held is not None:
            start, size, at = held
            if offset - start == place - at == padded(size) and size > 0:
                held = (start, offset - start + length, at)
                continue
            yield held
        held = (offset, length, place)
    if held is not None:
        yield held


def _read_local(path: Path, ranges: Sequence[Range], buffer: memoryview) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        for offset, length, place in ranges:
            count = os.preadv(handle, [buffer[place : place + length]], offset)
            _check(count, offset, length)
    finally:
        os.close(handle)


def _read_remote(tar: UPath, ranges: Sequence[Range], buffer: memoryview) -> None:
    for batch in _batches(ranges):
        starts, ends = [offset for offset, _, _ in batch], [offset + length for offset, length, _ in batch]
        try:
            pieces = tar.fs.cat_ranges([tar.path] * len(batch), starts, ends, on_error="raise")
        except OSError:
            if (size := tar.stat().st_size) < max(ends):  # each store has its own error for a range past the end
                raise EOFError(f"{size} bytes where {max(ends)} should be") from None
            raise
        for piece, (offset, length, place) in zip(pieces, batch, strict=True):
            _check(len(piece), offset, length)
            buffer[place : place + length] = piece


def _batches(ranges: Sequence[Range]) -> Iterator[list[Range]]:
    batch: list[Range] = []
    size = 0
    for range_ in ranges:
        batch.append(range_)
        size += range_[1]
        if size >= REMOTE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check(count: int, offset: int, length: int) -> None:
    if count != length:
        raise EOFError(f"{count} bytes at offset {offset} where {length} should be")
