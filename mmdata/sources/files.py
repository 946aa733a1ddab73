"""Reading metadata files in batches: Parquet by row group, CSV and JSON Lines as a stream, never a whole file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.errors import DataError

BATCH_ROWS = 10_000
MALFORMED = "__mmdata_malformed__"
"""Key of a record whose line could not be read; its value is the line."""

Record = dict[str, Any]


def column_names(path: UPath) -> list[str]:
    """A file's columns: of Parquet from the footer, of CSV from the header, of JSON Lines from the first object.

    Raises:
        DataError: the file cannot be read; names it.
    """
    try:
        if _is_parquet(path):
            with path.open("rb") as file:
                return pq.read_schema(file).names
        with _text(path) as text:
            if _is_json_lines(path):
                first = next((r for r in _json_records(text) if MALFORMED not in r), {})
                return list(first)
            return next(_csv_reader(text), [])
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error


def count_rows(path: UPath) -> int:
    """How many rows a file has: of Parquet from the footer, of text by reading it. Raises DataError."""
    try:
        if _is_parquet(path):
            with path.open("rb") as file:
                return pq.read_metadata(file).num_rows
        return sum(1 for _ in _text_records(path))
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error


def read_records(path: UPath, start: int, stop: int) -> Iterator[list[Record]]:
    """Rows `start` to `stop` of a file, a batch at a time, as dicts of plain values.

    Parquet row groups outside of the range are not read. A line that is not valid CSV or JSON is a record with the
    one key MALFORMED.

    Raises:
        DataError: the file cannot be read; names it.
    """
    try:
        if _is_parquet(path):
            yield from _parquet_records(path, start, stop)
        else:
            records = islice(_text_records(path), start, stop)
            while batch := list(islice(records, BATCH_ROWS)):
                yield batch
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error


def unreadable(path: UPath, error: Exception) -> DataError:
    """The error for a file that is broken or of another kind than its name says."""
    kind = "Parquet" if _is_parquet(path) else "JSON Lines" if _is_json_lines(path) else "CSV"
    return DataError(f"{path}: cannot be read as {kind} ({type(error).__name__}: {error}). Remedy: mend or remove it.")


def _parquet_records(path: UPath, start: int, stop: int) -> Iterator[list[Record]]:
    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            low, high = max(start, first), min(stop, first + rows)
            if low < high:
                at = first
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group]):
                    begin, end = max(low - at, 0), min(high - at, len(batch))
                    if begin < end:
                        yield _plain(batch.slice(begin, end - begin))
                    at += len(batch)
            first += rows


def _plain(batch: pa.RecordBatch) -> list[Record]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        # a string column with broken UTF-8: such a value alone becomes its bytes, and its row is told apart later
        binary = pa.schema([_as_binary(field) for field in batch.schema])
        raw = pa.RecordBatch.from_arrays(
            [_view(c, f.type) for c, f in zip(batch.columns, binary, strict=True)], schema=binary
        )
        return [{key: _decoded(value) for key, value in record.items()} for record in raw.to_pylist()]


def _as_binary(field: pa.Field) -> pa.Field:
    types = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return field.with_type(types.get(field.type, field.type))


def _view(column: pa.Array, target: pa.DataType) -> pa.Array:
    return column if column.type == target else column.cast(target)


def _decoded(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _text_records(path: UPath) -> Iterator[Record]:
    with _text(path) as text:
        yield from _json_records(text) if _is_json_lines(path) else _csv_records(text)


def _json_records(text: io.TextIOBase) -> Iterator[Record]:
    for line in text:
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        yield value if isinstance(value, dict) else {MALFORMED: line.rstrip("\n")}


def _csv_records(text: io.TextIOBase) -> Iterator[Record]:
    reader = _csv_reader(text)
    header = next(reader, [])
    for values in reader:
        if not values:
            continue
        if len(values) != len(header):
            yield {MALFORMED: ",".join(values)}
        else:
            yield {name: value if value != "" else None for name, value in zip(header, values, strict=True)}


def _csv_reader(text: io.TextIOBase) -> Iterator[list[str]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    return csv.reader(text, delimiter="\t" if getattr(text, "name", "").endswith(".tsv") else ",")


def _text(path: UPath) -> io.TextIOBase:
    # a byte that is no UTF-8 becomes a lone surrogate, by which its row is told apart later
    return path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_parquet(path: UPath) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _is_json_lines(path: UPath) -> bool:
    return path.suffix.lower() in (".jsonl", ".ndjson", ".json")
