"""Reads ranges of the files of a folder: from local files that stay open, or many at once from an object store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fsspec import filesystem
from fsspec.utils import merge_offset_ranges
from upath import UPath

from mmdata.storage.atomic import is_local

MAX_OPEN_FILES = 256  # per process; the file that was opened first is closed
MAX_BYTES_AT_ONCE = 32 << 20  # that a process asks an object store for
MAX_GAP_BYTES = 64 << 10  # ranges of a file that lie closer are read in one, with what is between them


class Range(NamedTuple):
    """Bytes of a file. Args: name: in the folder; offset, length: in bytes."""

    name: str
    offset: int
    length: int


class RangeReader:
    """Reads ranges of a folder's files. It can be pickled, and used in worker processes.

    Each read of an object store takes as long as a round trip. So say with `expect` what comes next: the first read of
    it asks for as much as `MAX_BYTES_AT_ONCE`, all at the same time.
    """

    def __init__(self, folder: UPath) -> None:
        self._folder, self._is_local = folder, is_local(folder)
        self._handles: dict[str, int] = {}
        self._owner = os.getpid()
        self._expected: dict[Range, None] = {}  # in the order in which they will be read
        self._held: dict[Range, bytes] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}, "_owner": -1, "_expected": {}, "_held": {}}

    def __del__(self) -> None:
        for handle in self._handles.values():  # a forked process has descriptors of its own to close
            os.close(handle)

    def expect(self, ranges: Iterable[Range]) -> None:
        """Say which ranges are read next, and forget those of before. Of local files nothing is read ahead."""
        if not self._is_local:
            self._expected, self._held = dict.fromkeys(ranges), {}

    def read(self, wanted: Range) -> bytes:
        """The bytes of a range; fewer if the file ends before. Raises FileNotFoundError."""
        if self._is_local:
            return self._read_local(wanted)
        if wanted in self._expected:
            self._fetch(wanted)
        return self._held[wanted] if wanted in self._held else self._read_alone(wanted)

    def _fetch(self, first: Range) -> None:
        """Ask for a range and for those that are expected behind it, as long as they fit."""
        expected = list(self._expected)
        chosen: list[Range] = []
        for wanted in expected[expected.index(first) :]:
            if chosen and sum(one.length for one in chosen) + wanted.length > MAX_BYTES_AT_ONCE:
                break
            chosen.append(wanted)
        self._expected = dict.fromkeys(expected[expected.index(first) + len(chosen) :])
        paths, starts, ends = merge_offset_ranges(
            [self._path(wanted) for wanted in chosen],
            [wanted.offset for wanted in chosen],
            [wanted.offset + wanted.length for wanted in chosen],
            max_gap=MAX_GAP_BYTES,
        )
        pieces = self._client().cat_ranges(paths, starts, ends, on_error="return")
        read = list(zip(paths, starts, pieces, strict=True))
        self._held = {wanted: data for wanted in chosen if (data := self._cut(wanted, read)) is not None}

    def _cut(self, wanted: Range, read: list[tuple[str, int, Any]]) -> bytes | None:
        """A range out of larger ones; None if its read failed, or the file ends before: it is then read alone."""
        path = self._path(wanted)
        for of_path, start, piece in read:
            at = wanted.offset - start
            if of_path == path and isinstance(piece, bytes) and at >= 0 and at + wanted.length <= len(piece):
                return piece[at : at + wanted.length]
        return None

    def _read_alone(self, wanted: Range) -> bytes:
        client, path = self._client(), self._path(wanted)
        try:
            return bytes(client.cat_file(path, start=wanted.offset, end=wanted.offset + wanted.length))
        except OSError:
            client.invalidate_cache(path)
            if client.size(path) > wanted.offset:
                raise
            return b""

    def _read_local(self, wanted: Range) -> bytes:
        if self._owner != os.getpid():  # descriptors of before a fork work here too (pread), but the dict is ours
            self._handles, self._owner = dict(self._handles), os.getpid()
        if (handle := self._handles.get(wanted.name)) is None:
            if len(self._handles) >= MAX_OPEN_FILES:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._handles[wanted.name] = os.open(Path(self._folder.path) / wanted.name, os.O_RDONLY)
        return os.pread(handle, wanted.length, wanted.offset)

    def _path(self, wanted: Range) -> str:
        return f"{self._folder.path.rstrip('/')}/{wanted.name}"

    def _client(self) -> Any:
        """Looked up for each read, because a client that was used before a fork does not work after it."""
        return filesystem(self._folder.protocol, **self._folder.storage_options)
