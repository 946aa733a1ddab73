"""Parquet tables in and out, on local disk or an object store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.atomic import atomic_path, is_local

_PART_TABLE = re.compile(r"parts/([^/]+)/(rows|media|features)/([^/]+)\.parquet$")


def write_table(path: UPath, table: pa.Table) -> None:
    """Publish a table as zstd Parquet, atomically. The same table gives the same bytes."""
    with atomic_path(path) as draft:
        pq.write_table(table, draft, compression="zstd", row_group_size=50_000)


def read_table(path: UPath, columns: Sequence[str] | None = None, optional: Sequence[str] = ()) -> pa.Table:
    """Read a table, or some columns of it.

    Args:
        optional: columns to read as well, where the table has them.

    Raises:
        DataError: the file is missing or is not readable Parquet; names it.
        OSError: the disk or the network failed, which may pass.
    """
    names = None if columns is None else list(columns)
    try:
        if names is not None and optional:
            with path.open("rb") as file:
                present = pq.read_schema(file).names
            names += [name for name in optional if name in present]
        if is_local(path):
            return pq.read_table(Path(path.path), columns=names, partitioning=None)
        with path.open("rb") as file:
            return pq.read_table(file, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise_unless_broken(error)
        raise DataError(f"{path}: cannot be read as Parquet ({error}). {table_remedy(path)}") from error


def read_schema(path: UPath) -> pa.Schema:
    """The schema of a table, read from the file's footer. Raises as `read_table` does."""
    try:
        with path.open("rb") as file:
            return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise_unless_broken(error)
        raise DataError(f"{path}: cannot be read as Parquet ({error}). {table_remedy(path)}") from error


def table_remedy(path: UPath) -> str:
    """The command that makes a damaged table of a workspace again."""
    of_part = _PART_TABLE.search(path.as_posix())
    name = ":".join(of_part.groups()) if of_part else "release"
    return f"Remedy: `mmdata build --redo {name}` makes it again."


def raise_unless_broken(error: Exception) -> None:
    """Let a fault of the disk or the network pass as it is: it may be gone at the next try, and a broken file is not.

    Call it while handling `error`; Arrow's own complaints of a file are plain OSErrors without a number.
    """
    if isinstance(error, FileNotFoundError) or not isinstance(error, OSError):
        return
    if error.errno is not None or type(error) is not OSError:  # a store's time-out has a type and no number
        raise error


def scan_tables(paths: Sequence[UPath], columns: Sequence[str] | None = None) -> pl.LazyFrame:
    """Scan tables as one lazy frame, in the order given.

    Args:
        columns: columns that all tables have; None: all, and the tables must have the same.
    """
    if paths and all(is_local(path) for path in paths):
        local_paths = [path.path for path in paths]
        if columns is None:
            return pl.scan_parquet(local_paths, glob=False)
        return pl.scan_parquet(local_paths, glob=False, extra_columns="ignore").select(columns)
    frames = [pl.from_arrow(read_table(path, columns)) for path in paths]
    return pl.concat([f for f in frames if isinstance(f, pl.DataFrame)]).lazy()
