"""Gathers the embeddings of chosen rows, slice by slice; on disk if they would not fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.tables import read_schema, read_table, table_remedy

MEMORY_LIMIT_BYTES = 2_000_000_000


@contextmanager
def gather_embeddings(
    tables: Sequence[UPath],
    place: np.ndarray,
    row: np.ndarray,
    advance: Callable[[int], None] = lambda rows: None,
    column: str = "embedding",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read the embeddings of rows from several features tables.

    Args:
        tables: features tables.
        place: for each wanted row, the number of its table.
        row: for each wanted row, its row number in that table.
        advance: called with the number of wanted rows that were just read.
        column: `embedding` (of pictures) or `text_embedding` (of captions). No row of a table without it has one.

    Yields:
        The embeddings, float16 (m, dim), a temporary memory map where they would take over 2 GB; and which of the
        wanted rows they are (m of them, in order): a row with no embedding, or with one that is zero or not finite,
        is left out.

    Raises:
        DataError: embeddings of different lengths; names the table.
    """
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(tables) + 1))
    has = np.zeros(len(place), bool)
    with tempfile.TemporaryDirectory(prefix="mmdata-embeddings-") as folder:
        held: np.ndarray | None = None
        for number, table in enumerate(tables):
            wanted = order[starts[number] : starts[number + 1]]
            if len(wanted) == 0:
                continue
            vectors, usable = read_vectors(table, row[wanted], column)
            if len(vectors):
                if held is None:
                    held = _room(len(place), vectors.shape[1], folder)
                if vectors.shape[1] != held.shape[1]:
                    raise DataError(
                        f"{table}: embeddings of {vectors.shape[1]} numbers, where others have {held.shape[1]}. "
                        f"{table_remedy(table)} Do so for each part that was scored by another model."
                    )
                has[wanted[usable]] = True
                held[wanted[usable]] = vectors
            advance(len(wanted))
        if held is None:
            yield np.empty((0, 0), np.float16), np.empty(0, np.int64)
        elif has.all():
            yield held, np.arange(len(place))
        else:
            rows = np.flatnonzero(has)
            for start in range(0, len(rows), 100_000):  # moved within the array: a second copy may not fit in memory
                chunk = rows[start : start + 100_000]
                held[start : start + len(chunk)] = held[chunk]
            yield held[: len(rows)], rows


def read_vectors(table: UPath, rows: np.ndarray, column: str = "embedding") -> tuple[np.ndarray, np.ndarray]:
    """The usable embeddings (float16, (m, dim)) among the given rows of a features table, and which of them they are.

    Args:
        column: as for `gather_embeddings`.

    Raises:
        DataError: lengths differ within the table.
    """
    if column != "embedding" and column not in read_schema(table).names:  # of a version that kept no text embeddings
        return np.empty((0, 0), np.float16), np.empty(0, np.int64)
    wanted = read_table(table, [column])[column].combine_chunks().take(pa.array(rows))
    present = np.flatnonzero(np.asarray(wanted.is_valid()))
    vectors = wanted.drop_null()
    flat = np.asarray(vectors.flatten()).view(np.float16) if len(vectors) else np.empty(0, np.float16)
    lengths = np.unique(np.asarray(vectors.value_lengths())) if len(vectors) else np.array([0])
    if len(lengths) != 1:
        raise DataError(
            f"{table}: embeddings of different lengths ({lengths[0]} to {lengths[-1]} numbers). {table_remedy(table)}"
        )
    if lengths[0] == 0:
        return np.empty((0, 0), np.float16), np.empty(0, np.int64)
    matrix = flat.reshape(len(vectors), lengths[0])
    usable = np.isfinite(matrix).all(axis=1) & matrix.any(axis=1)
    return matrix[usable], present[usable]


def _room(rows: int, dim: int, folder: str) -> np.ndarray:
    if rows * dim * 2 <= MEMORY_LIMIT_BYTES:
        return np.empty((rows, dim), np.float16)
    return np.memmap(f"{folder}/embeddings.f16", np.float16, "w+", shape=(rows, dim))
