"""CSV, TSV and JSON Lines in, as streams, plain or compressed; a part is sought out, not read up to."""

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

BROKEN = (OSError, EOFError, zlib.error, LZMAError, csv.Error)
"""What reading raises on a file that is cut off or not compressed as its name says."""

LINE_BYTES = 1 << 24  # a longer line comes in pieces, each of them malformed
FIRST_OBJECTS = 1_000  # JSON Lines whose keys are looked at for the names of columns

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outline:
    """What one pass over a text file tells.

    Args:
        offsets: bytes (after decompression) at which each part begins.
    """

    columns: list[str]
    rows: int
    offsets: list[int]


class _Lines:
    """The file's lines as text; `offset` is the place after the last one. Bytes that are no UTF-8 become surrogates."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file, self.offset = file, offset
        if offset:
            file.seek(offset)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_BYTES)
        if not line:
            raise StopIteration
        encoding = "utf-8" if self.offset else "utf-8-sig"
        self.offset += len(line)
        return line.decode(encoding, "surrogateescape")


def is_json_lines(path: UPath) -> bool:
    """By name: .jsonl, .ndjson or .json, with or without a compression's suffix."""
    return bool({suffix.lower() for suffix in path.suffixes[-2:]} & {".jsonl", ".ndjson", ".json"})


def first_columns(path: UPath) -> list[str]:
    """The columns: CSV's header, or the keys of the first objects of JSON Lines. Raises one of `BROKEN`."""
    with path.open("rb", compression="infer") as file:
        lines = _Lines(file)
        if not is_json_lines(path):
            return next(_reader(path, lines), [])
        names: dict[str, None] = {}
        for line in islice((line for line in lines if not line.isspace()), FIRST_OBJECTS):
            names |= dict.fromkeys(_parsed(line) or ())
        return list(names)


def outline(path: UPath, part_rows: int) -> Outline:
    """Count a file's rows in one pass. Raises one of `BROKEN`."""
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


def read_text(path: UPath, columns: Columns, start: int, stop: int, known: tuple[int, int] = (0, 0)) -> Iterator[Batch]:
    """Rows `start` to `stop`, a batch at a time.

    Args:
        known: a row at or before `start`, and the byte at which it begins; (0, 0) reads from the beginning.

    Raises:
        One of `BROKEN`.
    """
    with path.open("rb", compression="infer") as file:
        records = _records(path, file, known[1])
        for _ in range(start - known[0]):
            next(records, None)
        at = start
        waiting: list[Record | None] = []
        for record in records:
            waiting.append(record)
            if at + len(waiting) == stop or len(waiting) == BATCH_ROWS:
                yield _batch_of(waiting, at, columns)
                at += len(waiting)
                waiting = []
            if at == stop:
                return
        if waiting:
            yield _batch_of(waiting, at, columns)


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
    """Records without the blank lines; one that the parser refuses is one of no values."""
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
    try:
        value = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_number(_: str) -> None:
    """NaN and the infinities, which JSON has not."""


def _batch_of(records: list[Record | None], first: int, columns: Columns) -> Batch:
    batch, own = Batch(first, [], [], [], [], [], [], [], []), columns.own
    for found in records:
        problem = None
        record = found or {}
        raw = [None if name is None else record.get(name) for name in (columns.url, columns.caption)]
        texts = [_text(value) for value in raw]
        if found is None or any(isinstance(value, dict | list) for value in raw):
            problem = "malformed_row"
        elif not all(text is None or text.isascii() or _is_sound(text) for text in texts):
            problem = "bad_encoding"
        url, caption = (None if text is None else _sound(text) for text in texts)
        batch.urls.append(url)
        batch.captions.append(caption)
        batch.langs.append(_optional(record, columns.lang))
        batch.hashes.append(_optional(record, columns.expected_sha256))
        extra = {name: value for name, value in record.items() if name not in own}
        batch.extras.append(_json(extra) if extra else None)
        batch.problems.append(problem)
        batch.starts.append(_optional(record, columns.start_s))
        batch.ends.append(_optional(record, columns.end_s))
    return batch


def _json(extra: Record) -> str:
    try:
        text = json.dumps(extra, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError:  # 1e999 is infinite
        finite = json.loads(json.dumps(extra), parse_constant=_no_number)
        text = json.dumps(finite, sort_keys=True, ensure_ascii=False)
    return _sound(text)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return None if isinstance(value, float) and math.isnan(value) else str(value)


def _optional(record: Record, name: str | None) -> str | None:
    text = _text(record.get(name)) if name is not None else None
    return None if text is None else _sound(text)


def _is_sound(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _sound(text: str) -> str:
    """The text with what is no UTF-8 replaced by question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
