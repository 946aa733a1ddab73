"""Reads CSV, TSV and JSON as streams, plain or compressed; a part is read from its own byte offset."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from upath import UPath

from mmdata.sources.batches import BATCH_ROWS, MAX_BATCH_BYTES, Batch
from mmdata.sources.columns import Columns, distinct
from mmdata.sources.delimited import header_of, records
from mmdata.sources.json_documents import Record, document_records, is_document
from mmdata.sources.lines import Lines, open_text
from mmdata.sources.problems import is_too_nested

JSON_LINES = frozenset({".jsonl", ".ndjson"})
JSON = JSON_LINES | {".json"}
HEADER_OBJECTS = 1_000  # the first JSON objects of a file, whose keys are its columns


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How the rows of a text file are written.

    Args:
        kind: csv, tsv, json lines or json document.
        header: the columns of a file without a header line; None: its first line names them.
    """

    kind: str
    header: Sequence[str] | None

    def reader(self, file: BinaryIO, path: UPath, offset: int = 0) -> tuple[list[str], Lines, Iterator[Record | None]]:
        """The names of the columns (of JSON none), the lines, and the rows from a byte on; None for a malformed row.

        Args:
            offset: a byte at which a row begins; 0: the beginning of the file.
        """
        lines = Lines(file, 0 if offset and self.kind in ("csv", "tsv") and self.header is None else offset)
        if self.kind == "json document":
            return [], lines, document_records(file, str(path))
        if self.kind == "json lines":
            return [], lines, (_parsed(line) for line in lines if not line.isspace())
        tabs = self.kind == "tsv"
        header = header_of(lines, tabs=tabs) if self.header is None else list(self.header)
        if offset > lines.offset:
            lines = Lines(file, offset)
        return header, lines, _named(records(lines, header, tabs=tabs), distinct(header))


@dataclass(frozen=True, slots=True)
class Outline:
    """Columns and rows of a text file."""

    columns: list[str]
    rows: int
    offsets: list[int]  # bytes (after decompression) at which each part begins; empty: they are not known


def is_json(path: UPath) -> bool:
    """Whether the name ends in .jsonl, .ndjson or .json, with or without the suffix of a compression."""
    return bool({suffix.lower() for suffix in path.suffixes[-2:]} & JSON)


def text_format(path: UPath, header: Sequence[str] | None = None) -> TextFormat:
    """The format of a text file, by its name and, of JSON, its first two lines. Raises one of `BROKEN`."""
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    if not suffixes & JSON:
        return TextFormat("tsv" if suffixes & {".tsv", ".tab"} else "csv", header)
    with open_text(path) as file:
        first_two = [*islice((line for line in Lines(file) if not line.isspace()), 2), "", ""][:2]
    document = is_document(*first_two, named_lines=bool(suffixes & JSON_LINES))
    return TextFormat("json document" if document else "json lines", None)


def first_columns(path: UPath, header: Sequence[str] | None = None) -> list[str]:
    """The column names: the header of a CSV file, or the keys of the first JSON objects. Raises one of `BROKEN`."""
    text = text_format(path, header)
    with open_text(path) as file:
        names, _, rows = text.reader(file, path)
        return names or _keys(islice(rows, HEADER_OBJECTS))


def outline(path: UPath, part_rows: int, header: Sequence[str] | None = None) -> Outline:
    """Column names, number of rows and part offsets of a file, in one pass. Raises one of `BROKEN`."""
    text = text_format(path, header)
    with open_text(path) as file:
        names, lines, records = text.reader(file, path)
        offsets, first_objects, rows = [lines.offset], [], 0
        for record in records:
            rows += 1
            if rows <= HEADER_OBJECTS and not names:
                first_objects.append(record)
            if rows % part_rows == 0:
                offsets.append(lines.offset)
    is_document = text.kind == "json document"
    return Outline(names or _keys(first_objects), rows, [] if is_document else offsets)


def read_text(
    path: UPath,
    columns: Columns,
    start: int,
    stop: int,
    nearest: tuple[int, int] = (0, 0),
    header: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """Rows `start` to `stop`, in batches.

    Args:
        nearest: a row at or before `start`, and the byte at which it begins; (0, 0) reads from the beginning.
        header: the columns of a file without a header line.

    Raises:
        One of `BROKEN`.
    """
    text = text_format(path, header)
    with open_text(path) as file:
        _, lines, rows = text.reader(file, path, nearest[1])
        rows = islice(rows, start - nearest[0], stop - nearest[0])
        while batch := _next_batch(rows, lines):
            yield _batch_of(batch, start, columns)
            start += len(batch)


def _next_batch(rows: Iterator[Record | None], lines: Lines) -> list[Record | None]:
    """The next rows, as many as `BATCH_ROWS` and `MAX_BATCH_BYTES` of the file allow."""
    batch, begin = [], lines.offset
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS or lines.offset - begin > MAX_BATCH_BYTES:
            break
    return batch


def _named(rows: Iterable[list[str] | None], header: Sequence[str]) -> Iterator[Record | None]:
    for values in rows:
        named = values and {name: value or None for name, value in zip(header, values, strict=True)}
        yield named or None


def _keys(objects: Iterable[Record | None]) -> list[str]:
    names: dict[str, None] = {}
    for record in objects:
        names |= dict.fromkeys(record or ())
    return list(names)


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
    batch = Batch(first, [], [], [], [], [], [], [], [], [])
    for parsed in records:
        problem = None
        record = {**columns.constants, **(parsed or {})} if columns.constants else parsed or {}
        raw = [None if name is None else record.get(name) for name in (columns.url, columns.caption)]
        if columns.holds_lists:
            raw = [None if value is None else json.dumps(value, ensure_ascii=False) for value in raw]
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
        batch.md5s.append(_optional(record, columns.expected_md5))
        extra = {name: record[column] for name, column in columns.extra_names(record).items() if column in record}
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
