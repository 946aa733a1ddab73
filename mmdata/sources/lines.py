"""Opens text files, plain or compressed, and reads their lines with the bytes at which they begin."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections import deque
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
from upath import UPath

from mmdata.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)
"""The errors that a file raises if it is cut off, or its compression is damaged."""

MAX_LINE_BYTES = 1 << 24  # a longer line is read in pieces, and each piece is a malformed row
SKIP_BYTES = 1 << 20
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def open_text(path: UPath) -> Iterator[BinaryIO]:
    """The bytes of a text file after decompression. The first bytes say how it is compressed, not the name.

    Knows gzip, bzip2, xz, zstd, lz4, and zip archives of one file.

    Raises:
        DataError: the file is UTF-16, or an archive of several files.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(UTF16_MARKS):
            raise DataError(
                f"{path}: is UTF-16 text; only UTF-8 is read. Remedy: iconv -f UTF-16 -t UTF-8 OLD > NEW, and remove "
                "the old file."
            )
        if magic.startswith(b"PK\x03\x04"):
            yield stack.enter_context(_only_member(path, stack.enter_context(zipfile.ZipFile(raw))))
            return
        decompress = next((decompress for begin, decompress in _DECOMPRESS.items() if magic.startswith(begin)), None)
        yield stack.enter_context(decompress(raw)) if decompress else raw


def _arrow_stream(raw: Any, compression: str) -> Any:
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression), SKIP_BYTES)


_DECOMPRESS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x5d\x00\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": partial(_arrow_stream, compression="zstd"),
    b"\x04\x22\x4d\x18": partial(_arrow_stream, compression="lz4"),
}
"""The first bytes of a file -> what reads it."""


def _only_member(path: UPath, archive: zipfile.ZipFile) -> Any:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise DataError(f"{path}: is an archive of {len(names)} files. Remedy: unpack it.")
    return archive.open(names[0])


class Lines:
    """The lines of a file as text; a line may be put back. Invalid UTF-8 becomes surrogates.

    Args:
        offset: the byte (after decompression) at which the first line begins.

    Attributes:
        offset: the byte after the last line that was taken and not put back.
    """

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file, self.offset = file, offset
        self._waiting: deque[tuple[str, int]] = deque()
        if offset and file.seekable():
            file.seek(offset)
        else:
            while offset > 0 and (skipped := len(file.read(min(offset, SKIP_BYTES)))):
                offset -= skipped

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        return self.take()[0]

    def take(self) -> tuple[str, int]:
        """The next line, and its length in bytes. Raises StopIteration at the end of the file."""
        if self._waiting:
            text, size = self._waiting.popleft()
        else:
            line = self._file.readline(MAX_LINE_BYTES)
            if not line:
                raise StopIteration
            text, size = line.decode("utf-8" if self.offset else "utf-8-sig", "surrogateescape"), len(line)
        self.offset += size
        return text, size

    def put_back(self, lines: list[tuple[str, int]]) -> None:
        """Make lines that were taken, in their order, the next ones."""
        self._waiting.extendleft(reversed(lines))
        self.offset -= sum(size for _, size in lines)
