"""The tar headers against Python's own reader."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.storage.tar import BLOCK, END, BrokenTar, entries, headers, padded

NAMES = st.one_of(
    st.text("abcdef0123456789_-.é", min_size=1, max_size=40),
    st.text("abcdef0123456789", min_size=90, max_size=100),
).filter(lambda name: name.strip(".") == name)
SIZES = st.one_of(st.integers(0, 2000), st.sampled_from([0, 511, 512, 513, 1024, 8**5]))


def header(name: str, size: int) -> bytes:
    return headers([name], np.array([size], np.int64)).tobytes()


@given(st.dictionaries(NAMES, SIZES, max_size=8))
def test_python_reads_back_what_was_written(sizes: dict[str, int]) -> None:
    contents = {name: bytes([i % 251]) * size for i, (name, size) in enumerate(sizes.items())}
    blocks = headers(list(sizes), np.array(list(sizes.values()), np.int64))
    members = [
        (block.tobytes() + data).ljust(padded(len(data)), b"\0")
        for block, data in zip(blocks, contents.values(), strict=True)
    ]
    archive = b"".join(members) + END
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar}
        infos = tar.getmembers()
    assert found == contents
    assert all((i.mode, i.mtime, i.uid, i.gid, i.uname, i.isreg()) == (0o644, 0, 0, 0, "", True) for i in infos)


@given(NAMES, st.integers(0, 8**11 - 1))
def test_a_header_says_name_and_size_with_a_right_checksum(name: str, size: int) -> None:
    info = tarfile.TarInfo.frombuf(header(name, size), "utf-8", "strict")
    assert (info.name, info.size) == (name, size)


def test_a_member_takes_whole_blocks() -> None:
    sizes = np.array([0, 1, 511, 512, 513])
    assert padded(sizes).tolist() == [padded(int(size)) for size in sizes] == [512, 1024, 1024, 1024, 1536]
    assert padded(513) % BLOCK == 0


def test_what_ustar_cannot_say_is_refused() -> None:
    assert len(header("a" * 100, 8**11 - 1)) == BLOCK
    with pytest.raises(ValueError, match="100 bytes"):
        header("a" * 101, 0)
    with pytest.raises(ValueError, match="100 bytes"):
        header("é" * 51, 0)
    with pytest.raises(ValueError, match="100 bytes"):
        header("", 0)
    with pytest.raises(ValueError, match="do not fit"):
        header("a", 8**11)
    with pytest.raises(ValueError, match="do not fit"):
        header("a", -1)


@given(st.dictionaries(NAMES, SIZES, max_size=8))
def test_what_was_written_is_read_back_where_it_lies(sizes: dict[str, int]) -> None:
    blocks = headers(list(sizes), np.array(list(sizes.values()), np.int64))
    archive = b"".join((b.tobytes()).ljust(padded(size), b"x") for b, size in zip(blocks, sizes.values(), strict=True))
    found = list(entries(io.BytesIO(archive + END)))
    assert {one.name: one.size for one in found} == sizes
    assert all(one.is_plain for one in found)
    starts = np.cumsum([0, *(padded(size) for size in sizes.values())])[:-1]
    assert [one.header_at for one in found] == starts.tolist()


@pytest.mark.parametrize("at", [0, 99, 100, 124, 148, 156, 257, 300, 400])
def test_a_header_with_one_changed_byte_is_no_header(at: int) -> None:
    block = bytearray(header("a.jpg", 0))
    block[at] ^= 1
    with pytest.raises(BrokenTar):
        list(entries(io.BytesIO(bytes(block) + END)))
