"""Writes the selection table in pieces, so that ten million rows are never in memory as text."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.samples import SELECTION
from mmdata.select.candidates import Slice
from mmdata.select.decide import Decision
from mmdata.select.verdicts import STAYS, Verdicts
from mmdata.storage.atomic import atomic_path

_PIECE_ROWS = 250_000
_ROW_GROUP_ROWS = 50_000


def write_selection(
    path: UPath,
    frame: pl.DataFrame,
    slices: Sequence[Slice],
    verdicts: Verdicts,
    cluster: np.ndarray,
    decision: Decision,
) -> None:
    """Publish `selection.parquet`: SELECTION's columns and those of named scores, sorted by uid.

    The same decisions give the same bytes.
    """
    schema = selection_schema(frame)
    # A dictionary of values that never repeat costs time and space.
    repeating = [name for name in SELECTION.names if name not in {"uid", "duplicate_of", "clip_score", "rate"}]
    with (
        atomic_path(path) as draft,
        pq.ParquetWriter(draft, schema, compression="zstd", use_dictionary=repeating) as writer,
    ):
        piece = partial(
            selection_rows, frame=frame, slices=slices, verdicts=verdicts, cluster=cluster, decision=decision
        )
        starts = range(0, len(frame), _PIECE_ROWS)
        with ThreadPoolExecutor(1) as ahead:  # the next piece is made while this one is compressed
            coming = ahead.submit(piece, slice(0, _PIECE_ROWS))
            for start in starts:
                made = coming.result()
                if start != starts[-1]:
                    coming = ahead.submit(piece, slice(start + _PIECE_ROWS, start + 2 * _PIECE_ROWS))
                writer.write_table(made, row_group_size=_ROW_GROUP_ROWS)


def selection_schema(frame: pl.DataFrame) -> pa.Schema:
    """SELECTION, and a column float32 for each named score of the candidates; null where a row has none."""
    scores = [name for name in frame.columns if name.startswith("score_")]
    return pa.schema([*SELECTION, *(pa.field(name, pa.float32()) for name in scores)])


def selection_rows(
    rows: slice,
    frame: pl.DataFrame,
    slices: Sequence[Slice],
    verdicts: Verdicts,
    cluster: np.ndarray,
    decision: Decision,
) -> pa.Table:
    """The rows of a range of candidates, in the schema of `selection_schema`."""
    schema = selection_schema(frame)
    high, low = frame["uid_high"].to_numpy(), frame["uid_low"].to_numpy()
    piece = frame[rows]
    place = piece["place"].to_numpy()
    leaders = verdicts.leaders[rows]
    keep = verdicts.codes[rows] == 0
    numbers, concept = cluster[rows], decision.concept[rows]
    split = np.where(decision.validation[rows], 0, 1)
    columns = {
        "uid": hex_uids(high[rows], low[rows]),
        "part": _named([one.part for one in slices], place),
        "slice": _named([one.name for one in slices], place),
        "copies": pa.array(piece["copies"].to_numpy()),
        "signature": piece["signature"]
        .cast(pl.String)
        .to_arrow(compat_level=pl.CompatLevel.oldest())
        .cast(pa.string()),
        "clip_score": piece["clip_score"].to_arrow(),
        "keep": pa.array(keep),
        "reason": _named(verdicts.names, verdicts.codes[rows], keep),
        "duplicate_of": hex_uids(high, low, leaders),
        "cluster": pa.array(numbers, mask=numbers < 0),
        "concept": _named(decision.concept_names, np.maximum(concept, 0), concept < 0),
        "rate": pa.array(decision.rate[rows]),
        "repeats": pa.array(decision.repeats[rows]),
        "split": _named(["validation", "train"], split, ~keep),
    }
    scores = [piece[name].fill_nan(None).to_arrow() for name in schema.names[len(SELECTION) :]]
    return pa.table([*(columns[name] for name in SELECTION.names), *scores], schema=schema)


def hex_uids(high: np.ndarray, low: np.ndarray, rows: np.ndarray | None = None) -> pa.Array:
    """Uids as 32 hex digits, of all rows or of the given ones; null where a row number is `STAYS`."""
    missing = None
    if rows is not None:
        missing = rows == STAYS
        present = rows[~missing]
        high, low = high[present], low[present]
    digits = np.stack([high, low], axis=1).astype(">u8").tobytes().hex().encode()
    offsets = np.arange(len(high) + 1, dtype=np.int32) * 32
    uids = pa.StringArray.from_buffers(len(high), pa.py_buffer(offsets), pa.py_buffer(digits))
    if missing is None:
        return uids
    return uids.take(pa.array(np.cumsum(~missing) - 1, mask=missing))


def _named(names: Sequence[str], codes: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    indices = pa.array(codes.astype(np.int32), mask=missing)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string())).cast(pa.string())
