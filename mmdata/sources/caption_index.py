"""Indexes the one large JSON of captions of HowTo100M, which does not fit into memory.

One streaming pass finds the byte range of each video's entry. The ranges are kept as a table in the workspace, sorted
by video, so that a part reads only the entries of its own videos.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice

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
MAX_ENTRY_BYTES = 1 << 26  # for one video; a file with a longer entry is damaged
BATCH_ENTRIES = 100_000  # entries that are Python objects in memory at once

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OBJECT = rb"\{[^\"{}]*+(?:" + _STRING + rb"[^\"{}]*+)*+"  # up to its closing brace
# One whole entry: key, colon, then an object or null. The patterns are possessive (*+), so they never backtrack.
_ENTRY = re.compile(rb"[\s,]*+(" + _STRING + rb")\s*+:\s*+(" + _OBJECT + rb"\}|null)", re.DOTALL)
# The beginning of an entry that the buffer cuts off.
_ENTRY_START = re.compile(rb"[\s,]*+(?:" + _STRING + rb"\s*+(?::\s*+(?:" + _OBJECT + rb")?)?)?", re.DOTALL)
# A string or null that the buffer cuts off.
_CUT_OFF_VALUE = re.compile(rb'(?:"(?:[^"\\]|\\.)*+\\?|n|nu|nul)?', re.DOTALL)
_INDEX = pa.schema([("video_id", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])


def open_index(path: UPath, cache: UPath) -> pl.LazyFrame:
    """The index of a JSON file of captions (video_id, offset, length), one row per video; written if it is missing.

    In the folder `cache` it is named by path, size and modification time (or ETag) of its file. Raises as `entries`.
    """
    index = cache / f"{fingerprint('captions', 2, str(path), *seen_state(path))}.parquet"
    if not index.exists():
        ranges = pl.concat([pl.DataFrame(_INDEX.empty_table()), *_frames(path)])
        # if a video has two entries the last one counts, as for every JSON parser
        ranges = ranges.sort("video_id", "offset").unique("video_id", keep="last", maintain_order=True)
        with atomic_path(index) as draft:
            pq.write_table(ranges.to_arrow().cast(_INDEX), draft, compression="zstd", row_group_size=BATCH_ENTRIES)
    return scan_tables([index])


def _frames(path: UPath) -> Iterator[pl.DataFrame]:
    remaining = entries(path)
    while rows := list(islice(remaining, BATCH_ENTRIES)):
        yield pl.DataFrame(rows, schema={"video_id": pl.String, "offset": pl.Int64, "length": pl.Int64}, orient="row")


def entries(path: UPath) -> Iterator[tuple[str, int, int]]:
    """Each video of a JSON file of captions and the range of its entry: id, offset, length. Reads in chunks.

    Raises:
        DataError: the file ends early or is of another shape; names the byte.
    """
    with path.open("rb") as file:
        # `buffer` starts at byte `base` of the file, and `at` is the position in the buffer
        base, buffer = 0, file.read(CHUNK_BYTES)
        at = len(buffer) - len(buffer.removeprefix(b"\xef\xbb\xbf").lstrip())
        if buffer[at : at + 1] != b"{":
            raise DataError(_not_captions(path, at))
        at, chunk = at + 1, CHUNK_BYTES
        while True:
            if match := _ENTRY.match(buffer, at):
                at = match.end()
                if match[2] != b"null":
                    yield _video_id(match[1], path, base), base + match.start(2), match.end(2) - match.start(2)
                continue
            if (end := _end_of_object(buffer, at)) is not None:
                _check_nothing_follows(path, base + end, buffer[end:], iter(lambda: file.read(CHUNK_BYTES), b""))
                return
            entry_start = _ENTRY_START.match(buffer, at)
            last = entry_start.end() if entry_start else at
            if not _CUT_OFF_VALUE.fullmatch(buffer, last) or len(buffer) - at > MAX_ENTRY_BYTES:
                raise DataError(_not_captions(path, base + last))
            more = file.read(chunk)
            if not more:
                raise DataError(_not_captions(path, base + len(buffer)))
            # while one entry is longer than the buffer, read twice as much each time: the scans add up to linear time
            chunk = CHUNK_BYTES if at else 2 * chunk
            base, buffer, at = base + at, buffer[at:] + more, 0


def _end_of_object(buffer: bytes, at: int) -> int | None:
    rest = buffer[at:].lstrip()
    return len(buffer) - len(rest) + 1 if rest.startswith(b"}") else None


def _check_nothing_follows(path: UPath, at: int, rest: bytes, more: Iterator[bytes]) -> None:
    for piece in (rest, *more):
        if left := piece.lstrip():
            raise DataError(_not_captions(path, at + len(piece) - len(left)))
        at += len(piece)


def _video_id(token: bytes, path: UPath, at: int) -> str:
    try:
        text = str(json.loads(token.decode("utf-8", "replace"), strict=False))
    except ValueError:
        raise DataError(_not_captions(path, at)) from None
    return text.encode("utf-8", "replace").decode()


def _not_captions(path: UPath, byte: int) -> str:
    return (
        f"{path}: byte {byte}: expected captions as HowTo100M's raw_caption.json has them, one object "
        '{"<video id>": {"start": […], "end": […], "text": […]}, …}; the file ends too early, or has another format. '
        "Remedy: download it again, or correct `captions` in corpus.yaml."
    )
