"""Reads stored media from the tars of the slices, in the order of their offsets.

The members of a clip are consecutive in the tar and in the shard, so they are read at once. A tar whose bytes changed
on the disk is not packed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.fingerprint import file_sha256
from mmdata.storage.atomic import is_local
from mmdata.storage.tar import padded
from mmdata.workspace.layout import redo_remedy, split_media_tar_name

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
            raise DataError(f"{tar}: {error}. {_remedy(tar, str(part))}") from error


class TarCheck:
    """Compares media tars with the SHA-256 in their names, each once, whichever thread needs it first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._checks: dict[str, Future[str]] = {}  # tar -> SHA-256

    def require_sound(self, frame: pl.DataFrame) -> None:
        """Read the tars of samples.

        Args:
            frame: part, tar, offset.

        Raises:
            DataError: a tar is missing, or its bytes are not those that were stored.
        """
        tars = frame.filter(pl.col("offset").is_not_null()).select("tar", "part").unique(maintain_order=True)
        for name, part in tars.iter_rows():
            tar = UPath(name)
            _, digits = split_media_tar_name(tar.name)
            try:
                is_sound = not digits or self._sha256(tar).startswith(digits)
            except FileNotFoundError as error:
                raise DataError(f"{tar}: {error}. {_remedy(tar, part)}") from error
            if not is_sound:
                raise DataError(f"{tar}: its bytes have changed since they were stored. {_remedy(tar, part)}")

    def _sha256(self, tar: UPath) -> str:
        with self._lock:
            is_first = str(tar) not in self._checks
            check = self._checks.setdefault(str(tar), Future())
        if is_first:
            try:
                check.set_result(file_sha256(tar))
            except OSError as error:
                check.set_exception(error)
            finally:
                check.cancel()  # after any other error, so that no thread waits for ever
        return check.result()


def _remedy(tar: UPath, part: str) -> str:
    return redo_remedy(part, "media", split_media_tar_name(tar.name)[0])


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
