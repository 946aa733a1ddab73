"""Reads Parquet files: the footer for the catalogue, and the rows of a part from the row groups that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from mmdata.sources.batches import BATCH_ROWS, MAX_BATCH_BYTES, Batch, MissingColumns, unreadable_rows
from mmdata.sources.columns import Columns, distinct
from mmdata.sources.parquet_values import Texts, extras_of, hex_texts_of, is_binary, json_texts_of, texts_of

CORRUPT = (pa.ArrowException, OSError, UnicodeDecodeError)
"""The errors that pyarrow raises if a file is not sound Parquet; UnicodeDecodeError for the names of its columns."""

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
        metadata = parquet.metadata
        in_groups = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        if in_groups != metadata.num_rows:
            raise pa.ArrowInvalid(f"its footer says {metadata.num_rows} rows, and its row groups hold {in_groups}")
        return parquet.schema_arrow.names, metadata.num_rows


def check_text_columns(path: UPath, columns: Columns) -> None:
    """Raises MissingColumns if the URL, caption or time column holds what cannot be read as text.

    That is lists and structs, which have no text form; of documents, which have them, bytes at any depth.
    """
    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        for field in parquet.schema_arrow:
            cannot_be_read = is_binary if columns.holds_lists else pa.types.is_nested
            if field.name in columns.text and cannot_be_read(field.type):
                raise MissingColumns(
                    f"{path}: column {field.name} holds {field.type}, not text. "
                    "Remedy: name another column, or write the file again with one text in each row."
                )


def read_parquet(path: UPath, columns: Columns, start: int, stop: int) -> Iterator[Batch]:
    """Rows `start` to `stop`, in batches; row groups and columns that are not needed are not read.

    Only one batch is in memory at a time. If a row group cannot be decoded, its remaining rows get the problem
    `unreadable`. The batches say which binary columns were left out.

    Raises:
        OSError: the storage failed; the data may be sound.
    """
    with path.open("rb") as raw:
        file = _FileWithFailure(raw)
        with pq.ParquetFile(file) as parquet:
            selection = _selection(parquet.schema_arrow, columns)
            group_start = 0
            for group in range(parquet.metadata.num_row_groups):
                group_stop = group_start + parquet.metadata.row_group(group).num_rows
                span = max(start, group_start), min(stop, group_stop)
                if span[0] < span[1]:
                    yield from _Group(file, parquet, group, selection).read(group_start, span)
                group_start = group_stop


@dataclass(frozen=True, slots=True)
class _Selection:
    """The columns of a file that are read.

    Args:
        asked: the names to ask the reader for; None: all, since a name does not tell the columns apart.
        given: the distinct names of what the reader then gives, in its order.
        extras: name in `extra` -> distinct name.
        left_out: binary columns that are not wanted.
    """

    columns: Columns
    asked: list[str] | None
    given: list[str]
    extras: dict[str, str]
    left_out: frozenset[str]


def _selection(schema: pa.Schema, columns: Columns) -> _Selection:
    names = distinct(schema.names)
    types = dict(zip(names, schema.types, strict=True))
    extras = columns.extra_names([*names, *columns.constants])
    wanted = columns.kept or frozenset()  # a binary column that corpus.yaml names is read as text
    left_out = {name for name in extras.values() if name in types and name not in wanted and is_binary(types[name])}
    extras = {name: column for name, column in sorted(extras.items()) if column not in left_out}
    needed = columns.mapped | set(extras.values())
    asked: list[str] | None = [name for name in names if name in needed]
    given = list(asked or ())
    if names != schema.names or any(_belongs(name, names, below=True) for name in names):
        asked, given = None, names
    return _Selection(columns, asked, given, extras, frozenset(left_out))


def _belongs(path: str, names: Collection[str], *, below: bool = False) -> bool:
    """Whether a dotted path is one of the names, or lies below one of them (with `below`: only below)."""
    pieces = path.split(".")
    return any(".".join(pieces[:count]) in names for count in range(1, len(pieces) + (not below)))


@dataclass(frozen=True, slots=True)
class _Group:
    """One row group of a file."""

    file: _FileWithFailure
    parquet: pq.ParquetFile
    number: int
    selection: _Selection

    def read(self, first: int, span: tuple[int, int]) -> Iterator[Batch]:
        """The rows of `span`; `first` is the number of the group's first row in the file."""
        row, (start, stop) = first, span
        batches = self.parquet.iter_batches(
            self._batch_rows(), row_groups=[self.number], columns=self.selection.asked, use_threads=False
        )
        left_out = self._left_out_bytes()
        while row < stop:
            try:
                batch = next(batches, None)
            except CORRUPT:
                if self.file.failed:
                    raise
                batch = None
            if batch is None:
                yield unreadable_rows(max(row, start), stop - max(row, start), "unreadable")
                return
            begin, end = max(start - row, 0), min(stop - row, batch.num_rows)
            if begin < end:
                yield _batch_of(batch.slice(begin, end - begin), row + begin, self.selection, left_out)
            row += batch.num_rows

    def _chunks(self, names: Sequence[str] | None) -> list[pq.ColumnChunkMetaData]:
        """The column chunks of some columns, or of all; none if the reader does not accept them.

        To ask for the metadata of a damaged chunk ends the process: pyarrow lets a C++ exception through. The
        reader does, so it is asked for a row first.
        """
        batches = self.parquet.iter_batches(1, row_groups=[self.number], columns=names, use_threads=False)
        try:
            next(batches, None)
        except CORRUPT:
            if self.file.failed:
                raise
            return []
        schema, metadata = self.parquet.schema, self.parquet.metadata.row_group(self.number)
        numbers = range(metadata.num_columns)
        return [metadata.column(n) for n in numbers if names is None or _belongs(schema.column(n).path, names)]

    def _left_out_bytes(self) -> dict[str, float]:
        """Column -> mean bytes a row, for the binary columns that are not read."""
        rows = max(1, self.parquet.metadata.row_group(self.number).num_rows)
        sizes: Counter[str] = Counter()
        for chunk in self._chunks(sorted(self.selection.left_out)) if self.selection.left_out else ():
            for name in self.selection.left_out:
                if _belongs(chunk.path_in_schema, [name]):
                    sizes[name] += chunk.total_uncompressed_size
        return {name: size / rows for name, size in sizes.items()}

    def _batch_rows(self) -> int:
        """Rows per batch; fewer if the values are long, so that a batch of them fits into memory.

        The file holds a dictionary value once, but in memory the value is repeated in every row that uses it.
        """
        chunks = self._chunks(self.selection.asked)
        group_bytes = sum(chunk.total_uncompressed_size for chunk in chunks)
        group_rows = self.parquet.metadata.row_group(self.number).num_rows
        rows = min(BATCH_ROWS, max(1, group_rows * MAX_BATCH_BYTES // max(1, group_bytes)))
        names = [
            chunk.path_in_schema
            for chunk in chunks
            if chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY"
        ]
        if not names:
            return rows
        longest = 1
        try:
            with pq.ParquetFile(self.file, read_dictionary=names) as encoded:
                first = next(encoded.iter_batches(1, row_groups=[self.number], columns=names, use_threads=False))
            for column in first.columns:
                for values in _dictionaries(column):
                    longest = max(longest, pc.max(pc.binary_length(values.cast(pa.large_binary()))).as_py() or 1)
        except (*CORRUPT, KeyError, StopIteration):  # KeyError: the footer names a column that its schema lacks
            return rows  # reading the rows will report the damage
        return max(1, min(rows, MAX_DICTIONARY_BATCH_BYTES // longest))


def _dictionaries(column: pa.Array) -> Iterator[pa.Array]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield column.dictionary
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _dictionaries(column.values)
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _dictionaries(column.field(number))


def _batch_of(batch: pa.RecordBatch, first: int, selection: _Selection, left_out: Mapping[str, float]) -> Batch:
    columns, rows = selection.columns, batch.num_rows
    batch = batch.rename_columns(selection.given)

    def text(name: str | None) -> Texts:
        if name is None or name in columns.constants:
            return [columns.constants.get(name or "")] * rows, []
        return texts_of(batch.column(name))

    def digest(name: str | None, digest_bytes: int) -> list[str | None]:
        return text(name)[0] if name not in batch.schema.names else hex_texts_of(batch.column(name), digest_bytes)

    def lists_or_text(name: str | None) -> Texts:
        return json_texts_of(batch.column(name)) if columns.holds_lists and name is not None else text(name)

    urls, bad_urls = lists_or_text(columns.url)
    captions, bad_captions = lists_or_text(columns.caption)
    problems: list[str | None] = [None] * rows
    for row in (*bad_urls, *bad_captions):
        problems[row] = "bad_encoding"
    langs, starts, ends = (text(name)[0] for name in (columns.lang, columns.start_s, columns.end_s))
    hashes, md5s = digest(columns.expected_sha256, 32), digest(columns.expected_md5, 16)
    extras = extras_of(batch, selection.extras, columns.constants)
    return Batch(first, urls, captions, langs, hashes, extras, problems, starts, ends, md5s, left_out=left_out)
