"""Ranges of an object store are asked for many at once, with neighbours in one request, and bounded by bytes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from training.data import range_reader
from training.data.range_reader import MAX_GAP_BYTES, Range, RangeReader

DATA = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8).tobytes()


@pytest.fixture
def folder() -> Iterator[UPath]:
    place = UPath("memory://shards")
    for name in ("a.tar", "b.tar"):
        (place / name).write_bytes(DATA)
    yield place
    fsspec.filesystem("memory").rm("/shards", recursive=True)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, int, int]]]:
    """The ranges of each call of the object store."""
    calls: list[list[tuple[str, int, int]]] = []
    many, one = MemoryFileSystem.cat_ranges, MemoryFileSystem.cat_file

    def cat_ranges(self: Any, paths: list[str], starts: list[int], ends: list[int], **options: Any) -> Any:
        calls.append(list(zip(paths, starts, ends, strict=True)))
        monkeypatch.setattr(MemoryFileSystem, "cat_file", one)
        try:
            return many(self, paths, starts, ends, **options)
        finally:
            monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)

    def cat_file(self: Any, path: str, start: int, end: int) -> Any:
        calls.append([(path, start, end)])
        return one(self, path, start=start, end=end)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", cat_ranges)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    return calls


def far_apart(count: int, length: int = 1000) -> list[Range]:
    return [Range("ab"[at % 2] + ".tar", at // 2 * (length + MAX_GAP_BYTES + 1), length) for at in range(count)]


def checked(reader: RangeReader, ranges: list[Range]) -> None:
    for wanted in ranges:
        assert reader.read(wanted) == DATA[wanted.offset : wanted.offset + wanted.length]


def test_what_is_expected_is_asked_for_at_once(folder: UPath, requests: list[Any]) -> None:
    reader, ranges = RangeReader(folder), far_apart(20)
    reader.expect(ranges)
    assert requests == []
    checked(reader, ranges)
    assert [len(call) for call in requests] == [20]


def test_neighbours_are_one_request(folder: UPath, requests: list[Any]) -> None:
    reader = RangeReader(folder)
    ranges = [Range("a.tar", start, 1000) for start in (3000, 0, 1000, 200_000, 6000)]
    reader.expect([*ranges, ranges[0]])
    checked(reader, [*ranges, ranges[0]])
    assert [sorted((start, end) for _, start, end in call) for call in requests] == [[(0, 7000), (200_000, 201_000)]]


def test_no_more_is_asked_for_than_fits(folder: UPath, requests: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_reader, "MAX_BYTES_AT_ONCE", 3500)
    reader, ranges = RangeReader(folder), [*far_apart(7), Range("a.tar", 600_000, 9000)]
    reader.expect(ranges)
    checked(reader, ranges)
    assert [len(call) for call in requests] == [3, 3, 1, 1], "one that is too large alone is read alone"


def test_what_was_not_expected_and_what_is_skipped_is_read_too(folder: UPath, requests: list[Any]) -> None:
    reader, ranges = RangeReader(folder), far_apart(6)
    checked(reader, ranges[5:])
    reader.expect(ranges)
    checked(reader, [ranges[2], ranges[3], ranges[0], ranges[4]])
    assert [len(call) for call in requests] == [1, 4, 1]
    again = pickle.loads(pickle.dumps(reader))
    checked(again, ranges)


def test_a_file_that_is_gone_or_cut_short_spoils_no_other(folder: UPath) -> None:
    (folder / "a.tar").write_bytes(DATA[:1500])
    (folder / "b.tar").unlink()
    (folder / "c.tar").write_bytes(DATA)
    reader = RangeReader(folder)
    ranges = [Range("a.tar", 0, 1000), Range("a.tar", 1200, 1000), Range("b.tar", 0, 10), Range("c.tar", 5, 10)]
    reader.expect(ranges)
    assert reader.read(ranges[0]) == DATA[:1000]
    assert reader.read(ranges[1]) == DATA[1200:1500]
    with pytest.raises(FileNotFoundError):
        reader.read(ranges[2])
    assert reader.read(ranges[3]) == DATA[5:15]


def test_local_files_are_read_by_range(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(DATA)
    reader = RangeReader(UPath(tmp_path))
    reader.expect([Range("a.tar", 5, 10)])
    assert reader.read(Range("a.tar", 5, 10)) == DATA[5:15]
    assert reader.read(Range("a.tar", len(DATA) - 5, 10)) == DATA[-5:]
    with pytest.raises(FileNotFoundError):
        reader.read(Range("b.tar", 0, 1))
