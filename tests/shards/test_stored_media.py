"""Reading stored media: few reads, from a disk and from a store, and media that are not where the table says."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.shards import stored_media
from mmdata.shards.packing import pack
from mmdata.shards.stored_media import read_media
from tests.support.packed_samples import Members, frame_of


def test_the_members_of_a_clip_are_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = (*((f"{at:03d}.jpg", bytes([at]) * (400 + 300 * at)) for at in range(4)), ("flac", b"f" * 5000))
    samples: list[tuple[Members, bytes, str]] = [(clip, b"{}", "a"), ((("jpg", b"j"),), b"{}", "b"), (clip, b"{}", "c")]
    reads: list[int] = []
    read = os.preadv

    def counted(handle: int, buffers: list[memoryview], offset: int) -> int:
        reads.append(offset)
        return read(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    together = bytes(pack(frame_of(tmp_path / "a.tar", samples, in_tar=True)))
    assert len(reads) == 3
    reads.clear()
    assert bytes(pack(frame_of(tmp_path / "b.tar", samples))) == together
    assert len(reads) == 11


def test_a_short_tar_is_named_with_its_remedy(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "0000.tar", [((("jpg", b"x" * 100),), b"{}", "a")])
    (tmp_path / "0000.tar").write_bytes(b"x" * 99)
    with pytest.raises(DataError, match=r"0000\.tar: 99 bytes at offset 0 where 100 should be.*web-000000"):
        pack(frame)


def test_a_missing_tar_is_named_with_its_remedy(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "0000.tar", [((("jpg", b"x" * 100),), b"{}", "a")])
    (tmp_path / "0000.tar").unlink()
    with pytest.raises(DataError, match=r"0000\.tar.*web-000000"):
        pack(frame)


def test_a_disk_that_fails_is_no_fault_of_the_data(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "0000.tar", [((("jpg", b"x"),), b"{}", "a")])
    (tmp_path / "0000.tar").unlink()
    (tmp_path / "0000.tar").mkdir()
    with pytest.raises(IsADirectoryError):
        read_media(frame.with_columns(place=pl.lit(0)), memoryview(bytearray(1)))


def table(tar: str, rows: list[tuple[int | None, int | None, int]]) -> pl.DataFrame:
    """Offset, length and place of members of one tar."""
    schema = {"offset": pl.Int64, "length": pl.Int64, "place": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(part=pl.lit("web-000000"), tar=pl.lit(tar))


ROWS = [(6, 4, 0), (None, None, 4), (0, 5, 6), (11, 0, 11)]


@pytest.mark.parametrize("batch_bytes", [1, 32_000_000])
@pytest.mark.parametrize("kind", ["disk", "store"])
def test_each_sample_lands_in_its_place_in_whatever_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, batch_bytes: int
) -> None:
    monkeypatch.setattr(stored_media, "REMOTE_BYTES", batch_bytes)
    tar = UPath(tmp_path / "a.tar") if kind == "disk" else UPath(f"memory://{tmp_path.name}/a.tar")
    tar.parent.mkdir(parents=True, exist_ok=True)
    tar.write_bytes(b"abcde-wxyz!")
    buffer = bytearray(b"." * 12)
    read_media(table(str(tar), ROWS), memoryview(buffer))
    assert bytes(buffer) == b"wxyz..abcde."


@pytest.mark.parametrize("offset", [4, 400])
def test_a_store_that_holds_too_little_is_named_with_its_remedy(tmp_path: Path, offset: int) -> None:
    tar = UPath(f"memory://{tmp_path.name}{offset}/a.tar")
    tar.parent.mkdir(parents=True, exist_ok=True)
    tar.write_bytes(b"abcde")
    with pytest.raises(DataError, match=r"a\.tar: .* should be\. Remedy: .*--redo web-000000:media:a`"):
        read_media(table(str(tar), [(offset, 3, 0)]), memoryview(bytearray(3)))
    tar.unlink()
    with pytest.raises(DataError, match=r"a\.tar: .*Remedy: .*--redo web-000000:media:a`"):
        read_media(table(str(tar), [(0, 3, 0)]), memoryview(bytearray(3)))
