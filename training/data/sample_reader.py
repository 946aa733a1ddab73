"""Samples of a release, read by range from its shards and taken apart into their members."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmdata.errors import DataError
from training.data.range_reader import Range, RangeReader
from training.data.sample_index import TrainingRelease, row_key

TAR_BLOCK = 512


class BadSample(Exception):
    """A sample that cannot be read; the batch reader replaces it and counts it."""


class SampleReader:
    """Reads samples by range. It can be pickled, and used in worker processes."""

    def __init__(self, release: TrainingRelease) -> None:
        self.release_id = release.id
        self._folder = release.release.workspace.shards_dir
        self._shards = release.shards
        self._ranges = RangeReader(self._folder)

    def expect(self, rows: np.ndarray) -> None:
        """Say which samples are read next, in order: an object store is then asked for many at once.

        Args: rows: of `sample_index.SAMPLE`.
        """
        self._ranges.expect(map(self._range, rows))

    def members(self, row: np.void) -> Mapping[str, bytes]:
        """A sample's members by extension: `jpg`, `txt`, `json`, `000.jpg`, `flac`.

        Args: row: of `sample_index.SAMPLE`.
        Raises DataError: the shard is gone or truncated, or does not hold this sample at the row's offset.
        """
        key = row_key(row)
        wanted = self._range(row)
        try:
            data = self._ranges.read(wanted)
        except FileNotFoundError:
            path = self._folder / wanted.name
            raise DataError(f"{path}: is no longer there. Remedy: `mmdata verify`, then restore it.") from None
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

    def _range(self, row: np.void) -> Range:
        return Range(self._shards[row["shard"]], int(row["offset"]), int(row["length"]))
