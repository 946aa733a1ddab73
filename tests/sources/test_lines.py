"""Lines of text files: the first bytes say how a file is compressed, and offsets count bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.sources.lines import BROKEN, Lines, open_text

TEXT = b"".join(b"line %d\n" % number for number in range(30_000))


def zstd(data: bytes) -> bytes:
    """Two frames, as `zstd` and pzstd write for large files."""
    half = len(data) // 2
    return b"".join(pa.Codec("zstd").compress(piece, asbytes=True) for piece in (data[:half], data[half:]))


def lz4(data: bytes) -> bytes:
    return pa.Codec("lz4").compress(data, asbytes=True)


def zipped(data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.csv", data)
    return archive.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd, lz4, zipped])
def test_a_compressed_file_is_read_whatever_its_name_says(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = UPath(tmp_path / "a.csv")
    path.write_bytes(compress(TEXT))
    with open_text(path) as file:
        assert file.read() == TEXT
    offset = TEXT.index(b"line 29999")
    with open_text(path) as file:
        assert list(Lines(file, offset)) == ["line 29999\n"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd, lz4])
def test_a_compressed_file_that_is_cut_off_is_broken(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = UPath(tmp_path / "a.csv")
    path.write_bytes(compress(TEXT)[:-20])
    with pytest.raises(BROKEN), open_text(path) as file:
        file.read()


def test_utf_16_and_archives_of_several_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.tsv")
    path.write_text("url\tcaption\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"UTF-16.*Remedy: iconv"), open_text(path):
        pass
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("a.tsv", "x")
        archive.writestr("b.tsv", "x")
    with pytest.raises(DataError, match=r"archive of 2 files\. Remedy"), open_text(path):
        pass


def test_lines_that_are_put_back_come_again_and_count_once() -> None:
    lines = Lines(io.BytesIO("\ufeffé\nb\nc".encode()))
    taken = [lines.take(), lines.take()]
    assert (taken, lines.offset) == ([("é\n", 6), ("b\n", 2)], 8)
    lines.put_back(taken[1:])
    assert lines.offset == 6
    assert [*lines] == ["b\n", "c"]
    assert lines.offset == 9
