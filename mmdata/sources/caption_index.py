"""Where each video's entry lies in HowTo100M's one large JSON of captions, which is larger than memory.

One streaming pass finds the entries. What it finds is kept as a table in the workspace, sorted by video, so that a part
reads the entries of its videos by range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.sources.source_files import seen_state
from mmdata.storage.atomic import atomic_path
from mmdata.storage.tables import scan_tables

CHUNK_BYTES = 1 << 22
MAX_ENTRY_BYTES = 1 << 26  # of one video's captions; a longer one is a broken file
BATCH_ENTRIES = 100_000  # in memory as Python objects at once

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OBJECT = rb"\{[^\"{}]*+(?:" + _STRING + rb"[^\"{}]*+)*+"  # up to its closing brace
_ENTRY = re.compile(rb"[\s,]*+(" + _STRING + rb")\s*+:\s*+(" + _OBJECT + rb"\}|null)", re.DOTALL)
_BEGUN = re.compile(rb"[\s,]*+(?:" + _STRING + rb"\s*+(?::\s*+(?:" + _OBJECT + rb")?)?)?", re.DOTALL)
_UNFINISHED = re.compile(rb'(?:"(?:[^"\\]|\\.)*+\\?|n|nu|nul)?', re.DOTALL)
_INDEX = pa.schema([("video_id", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])


def open_index(path: UPath, cache: UPath) -> pl.LazyFrame:
    """The index of a JSON file of captions: video_id, offset, length; one row a video, made where it is not there.

    Args:
        cache: the folder of indexes. They are named by the file's place, size and time of change (or ETag).

    Raises:
        DataError: the file is no such JSON; names the byte.
    """
    index = cache / f"{fingerprint('captions', 2, str(path), *seen_state(path))}.parquet"
    if not index.exists():
        found = pl.concat([pl.DataFrame(_INDEX.empty_table()), *_frames(path)])
        # the last of two entries counts, as it does for every reader of JSON
        found = found.sort("video_id", "offset").unique("video_id", keep="last", maintain_order=True)
        with atomic_path(index) as draft:
            pq.write_table(found.to_arrow().cast(_INDEX), draft, compression="zstd", row_group_size=BATCH_ENTRIES)
    return scan_tables([index])


def _frames(path: UPath) -> Iterator[pl.DataFrame]:
    rows: list[tuple[str, int, int]] = []
    for row in entries(path):
        rows.append(row)
        if len(rows) == BATCH_ENTRIES:
            yield _frame(rows)
            rows = []
    yield _frame(rows)


def _frame(rows: Sequence[tuple[str, int, int]]) -> pl.DataFrame:
    schema = {"video_id": pl.String, "offset": pl.Int64, "length": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def entries(path: UPath) -> Iterator[tuple[str, int, int]]:
    """Each video of a JSON file of captions, and where its entry lies: id, offset, length. Streams.

    Raises:
        DataError: the file ends early or is of another shape; names the byte.
    """
    with path.open("rb") as file:
        base, buffer = 0, file.read(CHUNK_BYTES)
        at = len(buffer) - len(buffer.removeprefix(b"\xef\xbb\xbf").lstrip())
        if buffer[at : at + 1] != b"{":
            raise DataError(_unlike(path, at))
        at, chunk = at + 1, CHUNK_BYTES
        while True:
            if found := _ENTRY.match(buffer, at):
                at = found.end()
                if found[2] != b"null":
                    yield _key(found[1], path, base), base + found.start(2), found.end(2) - found.start(2)
                continue
            if (end := _end_of_object(buffer, at)) is not None:
                _check_nothing_follows(path, base + end, buffer[end:], iter(lambda: file.read(CHUNK_BYTES), b""))
                return
            begun = _BEGUN.match(buffer, at)
            last = begun.end() if begun else at
            if not _UNFINISHED.fullmatch(buffer, last) or len(buffer) - at > MAX_ENTRY_BYTES:
                raise DataError(_unlike(path, base + last))
            more = file.read(chunk)
            if not more:
                raise DataError(_unlike(path, base + len(buffer)))
            chunk = CHUNK_BYTES if at else 2 * chunk  # an entry longer than the buffer is not scanned again and again
            base, buffer, at = base + at, buffer[at:] + more, 0


def _end_of_object(buffer: bytes, at: int) -> int | None:
    rest = buffer[at:].lstrip()
    return len(buffer) - len(rest) + 1 if rest.startswith(b"}") else None


def _check_nothing_follows(path: UPath, at: int, rest: bytes, more: Iterator[bytes]) -> None:
    for piece in (rest, *more):
        if left := piece.lstrip():
            raise DataError(_unlike(path, at + len(piece) - len(left)))
        at += len(piece)


def _key(token: bytes, path: UPath, at: int) -> str:
    try:
        text = str(json.loads(token.decode("utf-8", "replace"), strict=False))
    except ValueError:
        raise DataError(_unlike(path, at)) from None
    return text.encode("utf-8", "replace").decode()


def _unlike(path: UPath, byte: int) -> str:
    return (
        f"{path}: byte {byte}: expected captions as HowTo100M's raw_caption.json has them, one object "
        '{"<video id>": {"start": […], "end": […], "text": […]}, …}; the file is cut off here, or of another kind. '
        "Remedy: download it again, or correct `captions` in corpus.yaml."
    )
