"""Reads Parquet files: the footer for the catalogue, and the rows of a part from the row groups that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from mmdata.sources.batches import BATCH_ROWS, Batch, MissingColumns, unreadable_rows
from mmdata.sources.columns import Columns

CORRUPT = (pa.ArrowException, OSError)
"""The errors that pyarrow raises if a file is not sound Parquet."""

MAX_DICTIONARY_BATCH_BYTES = 100_000_000
"""Memory that one dictionary-encoded column of a batch may take."""


class _FileWithFailure:
    """A file that records whether a read failed, to tell a lost connection from corrupt data."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.failed = False

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception:
            self.failed = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def parquet_columns(path: UPath) -> tuple[list[str], int]:
    """Column names and number of rows, read from the footer. Raises one of `CORRUPT`."""
    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        return parquet.schema_arrow.names, parquet.metadata.num_rows


def check_text_columns(path: UPath, columns: Columns) -> None:
    """Raises MissingColumns if the URL, caption or time column holds lists or structs, which have no text form."""
    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
    for name in columns.text:
        if pa.types.is_nested(schema.field(name).type):
            raise MissingColumns(f"{path}: column {name} holds {schema.field(name).type}, not text")


def read_parquet(path: UPath, columns: Columns, start: int, stop: int) -> Iterator[Batch]:
    """Rows `start` to `stop`, in batches; other row groups are not read, and only one batch is in memory at a time.

    If a row group cannot be decoded, its remaining rows get the problem `unreadable`.

    Raises:
        OSError: the storage failed; the data may be sound.
    """
    with path.open("rb") as raw:
        file = _FileWithFailure(raw)
        with pq.ParquetFile(file) as parquet:
            group_start = 0
            for group in range(parquet.metadata.num_row_groups):
                group_stop = group_start + parquet.metadata.row_group(group).num_rows
                span = max(start, group_start), min(stop, group_stop)
                if span[0] < span[1]:
                    yield from _read_group(file, parquet, group, group_start, span, columns)
                group_start = group_stop


def _read_group(
    file: _FileWithFailure,
    parquet: pq.ParquetFile,
    group: int,
    group_start: int,
    span: tuple[int, int],
    columns: Columns,
) -> Iterator[Batch]:
    """The rows of `span` in one row group; `group_start` is the number of the group's first row in the file."""
    row, (start, stop) = group_start, span
    batches = parquet.iter_batches(_batch_rows(file, parquet, group), row_groups=[group], use_threads=False)
    while row < stop:
        try:
            batch = next(batches, None)
        except CORRUPT:
            if file.failed:
                raise
            batch = None
        if batch is None:
            yield unreadable_rows(max(row, start), stop - max(row, start), "unreadable")
            return
        begin, end = max(start - row, 0), min(stop - row, batch.num_rows)
        if begin < end:
            yield _batch_of(batch.slice(begin, end - begin), row + begin, columns)
        row += batch.num_rows


def _batch_rows(file: _FileWithFailure, parquet: pq.ParquetFile, group: int) -> int:
    """Rows per batch; fewer if a dictionary holds very long values, so that a batch of them fits into memory.

    The file holds a dictionary value once, but in memory the value is repeated in every row that uses it.
    """
    metadata = parquet.metadata.row_group(group)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    names = [
        chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY"
    ]
    if not names:
        return BATCH_ROWS
    longest = 1
    try:
        with pq.ParquetFile(file, read_dictionary=names) as encoded:
            first = next(encoded.iter_batches(1, row_groups=[group], columns=names, use_threads=False))
        for column in first.columns:
            for values in _dictionaries(column):
                longest = max(longest, pc.max(pc.binary_length(values.cast(pa.large_binary()))).as_py() or 1)
    except (*CORRUPT, StopIteration):
        return BATCH_ROWS  # reading the rows will report the damage
    return max(1, min(BATCH_ROWS, MAX_DICTIONARY_BATCH_BYTES // longest))


def _dictionaries(column: pa.Array) -> Iterator[pa.Array]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield column.dictionary
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _dictionaries(column.values)
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _dictionaries(column.field(number))


def _batch_of(batch: pa.RecordBatch, first: int, columns: Columns) -> Batch:
    def text(name: str | None) -> tuple[list[str | None], list[int]]:
        return ([None] * batch.num_rows, []) if name is None else _texts(batch.column(name))

    urls, bad_urls = text(columns.url)
    captions, bad_captions = text(columns.caption)
    problems: list[str | None] = [None] * batch.num_rows
    for row in (*bad_urls, *bad_captions):
        problems[row] = "bad_encoding"
    further = (columns.lang, columns.expected_sha256, columns.start_s, columns.end_s)
    langs, hashes, starts, ends = (text(name)[0] for name in further)
    return Batch(first, urls, captions, langs, hashes, _extras(batch, columns), problems, starts, ends)


def _texts(column: pa.Array) -> tuple[list[str | None], list[int]]:
    """The values of a column as text, and the indexes of the values that were not valid UTF-8."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _texts(column.dictionary_decode())
    if pa.types.is_null(kind):
        return [None] * len(column), []
    if pa.types.is_duration(kind):
        return [None if value is None else str(value.total_seconds()) for value in column.to_pylist()], []
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
        if not binary:
            return column.cast(pa.string()).to_pylist(), []
    try:
        text = column.cast(pa.large_string())
        text.validate(full=True)
        return pl.Series(values=text).to_list(), []
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary()).to_pylist()
        values = [None if value is None else value.decode("utf-8", "replace") for value in raw]
        return values, [n for n, value in enumerate(values) if value is not None and value.encode() != raw[n]]


def _extras(batch: pa.RecordBatch, columns: Columns) -> list[str | None]:
    """All other columns as a JSON object per row, keys sorted; NaN and infinities become null."""
    names = sorted(set(batch.schema.names) - columns.mapped)
    if not names:
        return [None] * batch.num_rows
    frame = pl.DataFrame({name: _jsonable(batch.column(name)) for name in names})
    return frame.select(pl.struct(names).struct.json_encode()).to_series().to_list()


def _jsonable(column: pa.Array) -> pl.Series:
    if _is_plain(column.type):
        try:
            column.validate(full=True)
            return pl.Series(values=column)
        except pa.ArrowInvalid:  # text that is not UTF-8
            pass
    if pa.types.is_nested(column.type):
        return pl.Series([None if value is None else _shown(value) for value in column], dtype=pl.String)
    return pl.Series(_texts(column)[0], dtype=pl.String)


def _shown(value: pa.Scalar) -> str:
    try:
        return str(value.as_py())
    except UnicodeDecodeError:
        return "text that is no UTF-8"


def _is_plain(kind: pa.DataType) -> bool:
    """Whether polars can write the type as JSON."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    half = pa.types.is_float16(kind)
    number = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and not half)
    return text or number or pa.types.is_boolean(kind) or pa.types.is_null(kind)
