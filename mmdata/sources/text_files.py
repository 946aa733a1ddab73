"""Reads CSV, TSV and JSON Lines as streams, plain or compressed; a part is read from its own byte offset."""

from __future__ import annotations

import csv
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from lzma import LZMAError
from typing import Any, BinaryIO

from upath import UPath

from mmdata.sources.batches import BATCH_ROWS, Batch
from mmdata.sources.columns import Columns
from mmdata.sources.problems import is_too_nested

BROKEN = (OSError, EOFError, zlib.error, LZMAError, csv.Error)
"""The errors that a file raises if it is cut off, or not compressed as its name says."""

MAX_LINE_BYTES = 1 << 24  # a longer line is read in pieces, and each piece is a malformed row
HEADER_OBJECTS = 1_000  # the first JSON objects of a file, whose keys are its columns

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outline:
    """Columns and rows of a text file."""

    columns: list[str]
    rows: int
    offsets: list[int]  # bytes (after decompression) at which each part begins


class _Lines:
    """The lines of a file as text; `offset` is the byte after the last line. Invalid UTF-8 becomes surrogates."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file, self.offset = file, offset
        if offset:
            file.seek(offset)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        encoding = "utf-8" if self.offset else "utf-8-sig"
        self.offset += len(line)
        return line.decode(encoding, "surrogateescape")


def is_json_lines(path: UPath) -> bool:
    """Whether the name ends in .jsonl, .ndjson or .json, with or without the suffix of a compression."""
    return bool({suffix.lower() for suffix in path.suffixes[-2:]} & {".jsonl", ".ndjson", ".json"})


def first_columns(path: UPath) -> list[str]:
    """The column names: the header of a CSV file, or the keys of the first JSON objects. Raises one of `BROKEN`."""
    with path.open("rb", compression="infer") as file:
        lines = _Lines(file)
        if not is_json_lines(path):
            return next(_reader(path, lines), [])
        names: dict[str, None] = {}
        for line in islice((line for line in lines if not line.isspace()), HEADER_OBJECTS):
            names |= dict.fromkeys(_parsed(line) or ())
        return list(names)


def outline(path: UPath, part_rows: int) -> Outline:
    """Column names, number of rows and part offsets of a file, in one pass. Raises one of `BROKEN`."""
    columns = first_columns(path)
    with path.open("rb", compression="infer") as file:
        lines = _Lines(file)
        records: Iterator[Any]
        if is_json_lines(path):
            records = (line for line in lines if not line.isspace())
        else:
            next(_reader(path, lines), None)
            records = _csv_values(_reader(path, lines))
        rows, offsets = 0, [lines.offset]
        for _ in records:
            rows += 1
            if rows % part_rows == 0:
                offsets.append(lines.offset)
    return Outline(columns, rows, offsets)


def read_text(
    path: UPath, columns: Columns, start: int, stop: int, nearest: tuple[int, int] = (0, 0)
) -> Iterator[Batch]:
    """Rows `start` to `stop`, in batches.

    Args:
        nearest: a row at or before `start`, and the byte at which it begins; (0, 0) reads from the beginning.

    Raises:
        One of `BROKEN`.
    """
    with path.open("rb", compression="infer") as file:
        records = _records(path, file, nearest[1])
        for _ in range(start - nearest[0]):
            next(records, None)
        while batch := list(islice(records, min(stop - start, BATCH_ROWS))):
            yield _batch_of(batch, start, columns)
            start += len(batch)


def _records(path: UPath, file: BinaryIO, offset: int) -> Iterator[Record | None]:
    if is_json_lines(path):
        for line in _Lines(file, offset):
            if not line.isspace():
                yield _parsed(line)
        return
    lines = _Lines(file)
    header = next(_reader(path, lines), [])
    for values in _csv_values(_reader(path, _Lines(file, offset) if offset else lines)):
        if len(values) == len(header):
            yield {name: value or None for name, value in zip(header, values, strict=True)}
        else:
            yield None


def _reader(path: UPath, lines: Iterator[str]) -> Iterator[list[str]]:
    tabs = ".tsv" in {suffix.lower() for suffix in path.suffixes[-2:]}
    return csv.reader(lines, delimiter="\t" if tabs else ",")


def _csv_values(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Records without blank lines; a record that the parser rejects becomes an empty list."""
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield []
        else:
            if values:
                yield values


def _parsed(line: str) -> Record | None:
    if is_too_nested(line):
        return None
    try:
        value = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_number(_: str) -> None:
    """Read NaN and infinity, which are not valid JSON, as null."""


def _batch_of(records: list[Record | None], first: int, columns: Columns) -> Batch:
    batch = Batch(first, [], [], [], [], [], [], [], [])
    for parsed in records:
        problem = None
        record = parsed or {}
        raw = [None if name is None else record.get(name) for name in (columns.url, columns.caption)]
        texts = [_text(value) for value in raw]
        if parsed is None or any(isinstance(value, dict | list) for value in raw):
            problem = "malformed_row"
        url, caption = (None if text is None else _as_utf8(text) for text in texts)
        if problem is None and [url, caption] != texts:
            problem = "bad_encoding"
        batch.urls.append(url)
        batch.captions.append(caption)
        batch.langs.append(_optional(record, columns.lang))
        batch.hashes.append(_optional(record, columns.expected_sha256))
        extra = {name: value for name, value in record.items() if name not in columns.mapped}
        batch.extras.append(_json(extra) if extra else None)
        batch.problems.append(problem)
        batch.starts.append(_optional(record, columns.start_s))
        batch.ends.append(_optional(record, columns.end_s))
    return batch


def _json(extra: Record) -> str:
    try:
        text = json.dumps(extra, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError:  # 1e999 is read as infinity
        finite = json.loads(json.dumps(extra), parse_constant=_no_number)
        text = json.dumps(finite, sort_keys=True, ensure_ascii=False)
    return _as_utf8(text)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return None if isinstance(value, float) and math.isnan(value) else str(value)


def _optional(record: Record, name: str | None) -> str | None:
    text = _text(record.get(name)) if name is not None else None
    return None if text is None else _as_utf8(text)


def _as_utf8(text: str) -> str:
    """The text with surrogates, which UTF-8 cannot encode, replaced by question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
