"""The index, read a shard at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from mmdata.errors import DataError
from mmdata.samples import INDEX, sample_key, sample_uid
from mmdata.shards.index import Tally, read_by_shard
from mmdata.storage.tables import write_table

UIDS = [sample_uid(None, str(number)) for number in range(6)]
ROWS = st.lists(st.tuples(st.sampled_from(UIDS), st.integers(0, 2), st.sampled_from(["train", "validation"])))


def index_of(shards: list[str]) -> pl.DataFrame:
    uids = [sample_uid(None, str(number)) for number in range(len(shards))]
    rows = [
        {"uid": uid, "key": sample_key(uid), "shard": shard, "split": "train", "signature": "text"}
        | dict.fromkeys(("offset", "length", "copy", "repeats", "tokens", "pixels", "frames", "augment"), 0)
        for uid, shard in zip(uids, shards, strict=True)
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(INDEX.empty_table()).schema)


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(1, 4))
def test_every_row_comes_once_and_with_its_shard(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], batch_rows: int
) -> None:
    frame = index_of([f"s{number}" for number, size in enumerate(sizes) for _ in range(size)])
    path = UPath(tmp_path_factory.mktemp("index") / "index.parquet")
    write_table(path, frame.to_arrow().cast(INDEX))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmdata.shards.index.BATCH_ROWS", batch_rows)
        found = list(read_by_shard(path))
    assert [(shard, len(rows)) for shard, rows in found] == [(f"s{number}", size) for number, size in enumerate(sizes)]
    assert [uid for _, rows in found for uid in rows["uid"]] == frame["uid"].to_list()


def test_a_shard_in_two_places_comes_twice(tmp_path: Path) -> None:
    path = UPath(tmp_path / "index.parquet")
    write_table(path, index_of(["a", "b", "a"]).to_arrow().cast(INDEX))
    assert [shard for shard, _ in read_by_shard(path)] == ["a", "b", "a"]


def test_an_index_that_is_gone_or_broken_is_named(tmp_path: Path) -> None:
    path = UPath(tmp_path / "index.parquet")
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        list(read_by_shard(path))
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        list(read_by_shard(path))


@given(ROWS, st.integers(1, 5))
def test_tally_finds_what_counting_finds(rows: list[tuple[str, int, str]], cut: int) -> None:
    frame = pl.DataFrame(rows, schema={"uid": pl.String, "copy": pl.Int32, "split": pl.String}, orient="row")
    tally = Tally()
    for first in range(0, len(frame), cut):
        tally.add(frame[first : first + cut])
    copies = Counter((uid, copy) for uid, copy, _ in rows)
    splits = {uid: {split for other, _, split in rows if other == uid} for uid, _, _ in rows}
    assert tally.doubled(99) == sorted({uid for (uid, _), count in copies.items() if count > 1})
    assert tally.straddling(99) == sorted(uid for uid, sides in splits.items() if len(sides) > 1)
    assert tally.doubled(1) == tally.doubled(99)[:1]
