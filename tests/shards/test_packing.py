"""A shard's bytes, against Python's tarfile given the same members; media that are not where the table says."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import nullcontext
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import DataError
from mmdata.shards.packing import pack
from mmdata.shards.stored_media import read_media
from mmdata.storage.tar import padded

MEDIA = st.one_of(
    st.just(()),
    st.binary(max_size=1100).map(lambda data: (("jpg", data),)),
    st.lists(st.binary(max_size=1100), min_size=1, max_size=4).map(
        lambda frames: (*((f"{at:03d}.jpg", data) for at, data in enumerate(frames)), ("flac", frames[0][::-1]))
    ),
)
SAMPLES = st.lists(st.tuples(MEDIA, st.binary(max_size=600), st.text(max_size=300)), max_size=6)
Members = tuple[tuple[str, bytes], ...]


def frame_of(tar: Path, samples: list[tuple[Members, bytes, str]], in_tar: bool = False) -> pl.DataFrame:
    """The samples as `members.complete` gives them, their media one after another in a file, or in a tar."""
    rows = []
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") if in_tar else nullcontext() as writer:
        for number, (media, facts, caption) in enumerate(samples):
            key, text = f"{number:032x}", caption.encode()
            stored = []
            for ext, data in media:
                if writer is not None:
                    info = tarfile.TarInfo(f"owner{number}.{ext}")
                    info.size, info.mtime = len(data), 1_700_000_000
                    offset = writer.offset + 512
                    writer.addfile(info, io.BytesIO(data))
                else:
                    offset = archive.tell()
                    archive.write(data)
                stored.append({"ext": ext, "offset": offset, "length": len(data)})
            first = stored[0] if stored else dict.fromkeys(("ext", "offset", "length"))
            sizes = [len(facts), len(text), *(one["length"] for one in stored)]
            rows.append(
                {
                    "key": key,
                    "part": "web-000000",
                    "tar": str(tar),
                    **first,
                    "further": stored[1:] or None,
                    "json": facts,
                    "txt": text,
                    "size": sum(padded(size) for size in sizes),
                }
            )
    tar.write_bytes(archive.getvalue())
    integers = dict.fromkeys(("offset", "length", "size"), pl.Int64)
    strings = dict.fromkeys(("key", "part", "tar", "ext"), pl.String)
    further = {"further": pl.List(pl.Struct({"ext": pl.String, "offset": pl.Int64, "length": pl.Int64}))}
    return pl.DataFrame(rows, schema={**strings, **integers, **further, "json": pl.Binary, "txt": pl.Binary})


@given(SAMPLES, st.booleans())
def test_python_finds_the_members_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[Members, bytes, str]], in_tar: bool
) -> None:
    frame = frame_of(tmp_path_factory.mktemp("media") / "0000.tar", samples, in_tar)
    archive = bytes(pack(frame))
    expected = []
    for key, (media, facts, caption) in zip(frame["key"], samples, strict=True):
        expected += [(f"{key}.{ext}", data) for ext, data in media]
        expected += [(f"{key}.json", facts), (f"{key}.txt", caption.encode())]
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        members = list(tar)
        assert [(info.name, tar.extractfile(info).read()) for info in members] == expected
        assert {info.mtime for info in members} <= {0}
        assert len(archive) == tar.offset + 1024


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
