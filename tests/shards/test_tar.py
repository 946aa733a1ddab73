"""The tar writer against Python's own reader."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shards.tar import END, archive_size, header, member

NAMES = st.text("abcdef0123456789_-.é", min_size=1, max_size=40).filter(lambda n: n.strip(".") == n)
SIZES = st.one_of(st.integers(0, 2000), st.sampled_from([0, 511, 512, 513, 1024]))


@given(st.dictionaries(NAMES, SIZES, max_size=8))
def test_python_reads_back_what_was_written(sizes: dict[str, int]) -> None:
    contents = {name: bytes([i % 251]) * size for i, (name, size) in enumerate(sizes.items())}
    archive = b"".join(piece for name, data in contents.items() for piece in member(name, data)) + END
    assert len(archive) == archive_size(sizes.values())
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar}
        infos = tar.getmembers()
    assert found == contents
    assert all((i.mode, i.mtime, i.uid, i.gid, i.uname, i.isreg()) == (0o644, 0, 0, 0, "", True) for i in infos)


def test_what_ustar_cannot_say_is_refused() -> None:
    assert len(header("a" * 100, 8**11 - 1)) == 512
    with pytest.raises(ValueError, match="100 bytes"):
        header("a" * 101, 0)
    with pytest.raises(ValueError, match="100 bytes"):
        header("", 0)
    with pytest.raises(ValueError, match="do not fit"):
        header("a", 8**11)
