"""Range reads of samples from the shards of a release, on local disk or in an object store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from fsspec import filesystem
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.atomic import is_local
from training.data.sample_index import TrainingRelease, row_key

MAX_OPEN_SHARDS = 256  # per process; the shard that was opened first is closed
TAR_BLOCK = 512


class BadSample(Exception):
    """A sample that cannot be read; the batch reader replaces it and counts it."""


class SampleReader:
    """Reads one sample with one range read. It can be pickled, and used in worker processes."""

    def __init__(self, release: TrainingRelease) -> None:
        self.release_id = release.id
        self._folder = release.release.workspace.shards_dir
        self._shards = release.shards
        self._handles: dict[int, int] = {}
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}, "_owner": -1}

    def __del__(self) -> None:
        for handle in self._handles.values():  # a forked process has descriptors of its own to close
            os.close(handle)

    def members(self, row: np.void) -> Mapping[str, bytes]:
        """A sample's members by extension: `jpg`, `txt`, `json`, `000.jpg`, `flac`.

        Args: row: of `sample_index.SAMPLE`.
        Raises DataError: the shard is gone or truncated, or does not hold this sample at the row's offset.
        """
        key = row_key(row)
        data = self._read(int(row["shard"]), int(row["offset"]), int(row["length"]))
        members: dict[str, bytes] = {}
        at = 0
        while at + TAR_BLOCK <= len(data):  # fields of a tar header: name, size at 124, type at 156
            name = data[at : at + 100].rstrip(b"\0").decode("utf-8", "replace")
            digits = data[at + 124 : at + 135].strip(b"\0 ")
            stem, dot, extension = name.partition(".")
            is_file = data[at + 156] in b"0\0" and not digits.strip(b"01234567")
            if stem != key or not dot or extension in members or not is_file:
                break
            size = int(digits or b"0", 8)
            members[extension] = data[at + TAR_BLOCK : at + TAR_BLOCK + size]
            at += TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK
        if at != row["length"] or at != len(data):
            byte = int(row["offset"]) + min(at, len(data))
            raise DataError(
                f"{self._folder / self._shards[row['shard']]}: byte {byte} does not begin a member of sample {key}: "
                "the shard is truncated or of another release. Remedy: `mmdata verify`."
            )
        return members

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        path = self._folder / self._shards[shard]
        try:
            return self._read_local(path, shard, offset, length) if is_local(path) else read_range(path, offset, length)
        except FileNotFoundError:
            raise DataError(f"{path}: is no longer there. Remedy: `mmdata verify`, then restore it.") from None

    def _read_local(self, path: UPath, shard: int, offset: int, length: int) -> bytes:
        if self._owner != os.getpid():  # descriptors of before a fork work here too (pread), but the dict is ours
            self._handles, self._owner = dict(self._handles), os.getpid()
        if (handle := self._handles.get(shard)) is None:
            if len(self._handles) >= MAX_OPEN_SHARDS:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._handles[shard] = os.open(path.path, os.O_RDONLY)
        return os.pread(handle, length, offset)


def read_range(path: UPath, offset: int, length: int) -> bytes:
    """Bytes of a file in an object store; fewer if it ends before, as a local file would give.

    The client is looked up for each read, because one that was used before a fork does not work after it.
    """
    client = filesystem(path.protocol, **path.storage_options)
    try:
        return bytes(client.cat_file(path.path, start=offset, end=offset + length))
    except OSError:
        client.invalidate_cache(path.path)
        if client.size(path.path) > offset:
            raise
        return b""
