"""Source files on any file system: finds them, counts their rows, and reads their rows in any format."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upath import UPath

from mmdata.config import Source
from mmdata.errors import DataError
from mmdata.sources.batches import Batch, MissingColumns
from mmdata.sources.columns import columns_of
from mmdata.sources.lines import BROKEN
from mmdata.sources.parquet import CORRUPT, check_text_columns, parquet_columns, read_parquet
from mmdata.sources.patterns import expanded, folder_columns
from mmdata.sources.text_files import first_columns, is_json, outline, read_text
from mmdata.storage.atomic import is_local

PARQUET = frozenset({".parquet", ".pq"})
TEXT = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json"})

MAX_PARQUET_ROWS_PER_BYTE = 100
"""A Parquet footer with more rows is forged or damaged; each claimed row would become a row of the table."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Status and number of rows of a file."""

    status: str  # ok | empty | unreadable; `error` says why it is not ok
    rows: int = 0
    error: str | None = None
    lacks_columns: bool = False  # the file is not damaged, but has no URL or caption column
    offsets: list[int] = field(default_factory=list)  # the byte at which each part begins, for text files


def find_files(source: Source) -> list[UPath]:
    """The files that the patterns of a source match, sorted, without hidden files; empty if there are none."""
    names: set[str] = set()
    for text in expanded(source.patterns):
        pattern = UPath(text)
        if is_local(pattern):
            matches = glob.glob(pattern.path, recursive=True)  # noqa: PTH207 - the pattern is absolute, with ** anywhere
            names |= {name for name in matches if Path(name).is_file()}
        else:
            details = pattern.fs.glob(pattern.path, detail=True)
            names |= {pattern.fs.unstrip_protocol(name) for name, facts in details.items() if facts["type"] == "file"}
    return [path for path in (UPath(name) for name in sorted(names)) if not path.name.startswith(".")]


def seen_state(path: UPath) -> tuple[int, str]:
    """Size in bytes and version of a file: its modification time on a disk, its ETag on an object store."""
    if is_local(path):
        facts = os.stat(path.path)  # noqa: PTH116 - the path is a UPath
        return facts.st_size, str(facts.st_mtime_ns)
    info: dict[str, Any] = path.fs.info(path.path)
    return int(info.get("size") or 0), etag_of(info) or str(path.fs.ukey(path.path))


def etag_of(info: Mapping[str, Any]) -> str:
    """The ETag in the file information of an fsspec file system; empty if there is none."""
    return str(info.get("ETag") or info.get("etag") or "").strip('"')


def look_into(source: Source, path: UPath, size: int) -> Contents:
    """Count the rows of a file and check its columns. Problems of the file are in the result, not raised."""
    try:
        if size == 0:
            return Contents("empty", error="0 bytes")
        kind = _kind(path)
        offsets: list[int] = []
        if kind in PARQUET:
            names, rows = parquet_columns(path)
            if rows > MAX_PARQUET_ROWS_PER_BYTE * size:
                claim = f"says that it has {rows:,} rows, in {size:,} bytes: its footer is forged or damaged"
                return Contents("unreadable", error=f"{path}: {claim}. Remedy: remove the file.")
        else:
            text_outline = outline(path, source.part_rows, source.header)
            names, rows, offsets = text_outline.columns, text_outline.rows, text_outline.offsets
        if rows == 0 and not names:
            return Contents("empty", error="0 rows")
        columns = columns_of(source, names, str(path), folder_columns(str(path)))
        if kind in PARQUET:
            check_text_columns(path, columns)
    except MissingColumns as error:
        return Contents("unreadable", error=str(error), lacks_columns=True)
    except DataError as error:
        return Contents("unreadable", error=str(error))
    except (*CORRUPT, *BROKEN) as error:
        return Contents("unreadable", error=_broken(path, error))
    return Contents("ok", rows, offsets=offsets) if rows else Contents("empty", error="0 rows")


def read_batches(
    source: Source, path: UPath, start: int, stop: int, nearest: tuple[int, int] = (0, 0)
) -> Iterator[Batch]:
    """Rows `start` to `stop` of a file, in order, in batches.

    Args:
        nearest: a row at or before `start`, and the byte at which it begins; used for text files.

    Raises:
        DataError: the file is damaged or lacks a needed column; names it.
        OSError: the storage failed; a later try may succeed.
    """
    constants = folder_columns(str(path))
    try:
        if _kind(path) in PARQUET:
            columns = columns_of(source, parquet_columns(path)[0], str(path), constants)
            yield from read_parquet(path, columns, start, stop)
        else:
            columns = columns_of(source, first_columns(path, source.header), str(path), constants)
            yield from read_text(path, columns, start, stop, nearest, source.header)
    except (*CORRUPT, *BROKEN) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the storage failed; errors of the parsers have no number
        raise DataError(_broken(path, error)) from error


def _kind(path: UPath) -> str:
    for suffix in reversed(path.suffixes[-2:]):
        if suffix.lower() in PARQUET | TEXT:
            return suffix.lower()
    raise DataError(
        f"{path}: its name has no suffix of a supported format ({', '.join(sorted(PARQUET | TEXT))}). "
        "Remedy: rename it, or narrow `files` in corpus.yaml."
    )


def _broken(path: UPath, error: Exception) -> str:
    kind = "Parquet" if _kind(path) in PARQUET else "JSON" if is_json(path) else "CSV"
    return f"{path}: cannot be read as {kind} ({type(error).__name__}: {error}). Remedy: repair or remove the file."
