"""Reads the index of a release one shard at a time, which its row order allows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.errors import DataError
from mmdata.releases.manifest import DAMAGED_REMEDY
from mmdata.samples import uid_words
from mmdata.storage.tables import raise_unless_broken

COLUMNS = ("uid", "key", "shard", "offset", "length", "split", "copy")
BATCH_ROWS = 50_000


def read_by_shard(path: UPath) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each shard that the index names, with its rows: uid, key, shard, offset, length, split, copy.

    Memory holds about the rows of one shard. A shard whose rows are not consecutive is yielded more than once.

    Raises:
        DataError: the index is missing or is not readable Parquet.
    """
    held: list[pl.DataFrame] = []
    try:
        with path.open("rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(COLUMNS)):
                for rows in _runs(pl.DataFrame(pa.Table.from_batches([batch]))):
                    if held and held[0]["shard"][0] != rows["shard"][0]:
                        yield str(held[0]["shard"][0]), pl.concat(held)
                        held = []
                    held.append(rows)
    except (OSError, pa.ArrowException) as error:
        raise_unless_broken(error)
        raise DataError(f"{path}: cannot be read as Parquet ({error}). {DAMAGED_REMEDY}") from error
    if held:
        yield str(held[0]["shard"][0]), pl.concat(held)


class Tally:
    """Checks across all shards: no key occurs twice, no uid is in two splits. Takes 18 bytes a sample."""

    def __init__(self) -> None:
        self._rows: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Count the rows of a shard. Raises ValueError where a uid is not 32 hex digits."""
        high, low = uid_words(rows["uid"])
        validation = (rows["split"] == "validation").to_numpy()
        copy = rows["copy"].to_numpy().astype(np.uint8)
        self._rows.append(pl.DataFrame({"high": high, "low": low, "copy": copy, "validation": validation}))

    def doubled(self, limit: int) -> list[str]:
        """At most `limit` uids of which one copy occurs more than once."""
        return self._uids(self._all().filter(pl.struct("high", "low", "copy").is_duplicated()), limit)

    def straddling(self, limit: int) -> list[str]:
        """At most `limit` uids that are in more than one split."""
        sides = self._all().group_by("high", "low").agg(pl.col("validation").n_unique())
        return self._uids(sides.filter(pl.col("validation") > 1), limit)

    def _all(self) -> pl.DataFrame:
        schema = {"high": pl.UInt64, "low": pl.UInt64, "copy": pl.UInt8, "validation": pl.Boolean}
        return pl.concat([pl.DataFrame(schema=schema), *self._rows])

    @staticmethod
    def _uids(rows: pl.DataFrame, limit: int) -> list[str]:
        words = rows.select("high", "low").unique().sort("high", "low").head(limit)
        return [f"{high:016x}{low:016x}" for high, low in words.iter_rows()]


def _runs(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Split the rows where the shard changes."""
    starts = [0, *((rows["shard"] != rows["shard"].shift(1)).fill_null(value=False).arg_true().to_list())]
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        if stop > start:
            yield rows[start:stop]
