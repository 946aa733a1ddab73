"""Embeddings of chosen rows, gathered from features tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.samples import FEATURES, table_of
from mmdata.select import embeddings
from mmdata.select.embeddings import gather_embeddings, read_vectors
from mmdata.select.stage import select_samples
from mmdata.storage.tables import read_table, write_table
from tests.support.selecting import build, corpus_for, sample, selection


def features(path: Path, *vectors: list[float] | None) -> UPath:
    """A features table with these embeddings."""
    rows = [
        {"uid": f"{number:032x}", "embedding": None if vector is None else np.asarray(vector, np.float16)}
        for number, vector in enumerate(vectors)
    ]
    write_table(UPath(path), table_of(rows, FEATURES))
    return UPath(path)


@pytest.mark.parametrize("limit", [10**9, 0])
def test_embeddings_come_in_the_order_asked_for_in_memory_and_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(embeddings, "MEMORY_LIMIT_BYTES", limit)
    tables = [
        features(tmp_path / "a.parquet", [0, 1], None, [0, 2], [math.inf, 1]),
        features(tmp_path / "b.parquet", [9, 9]),
        features(tmp_path / "c.parquet", [0, 3], [0, 0], [0, 4]),
    ]
    place, row = np.array([2, 0, 0, 2, 0, 2, 0]), np.array([2, 2, 1, 1, 0, 0, 3])
    read: list[int] = []
    with gather_embeddings(tables, place, row, read.append) as (vectors, rows):
        assert isinstance(vectors, np.memmap) == (limit == 0)
        assert vectors.dtype == np.float16
        assert vectors.tolist() == [[0, 4], [0, 2], [0, 1], [0, 3]]
        assert rows.tolist() == [0, 1, 4, 5]
    assert read == [4, 3]  # the table of which nothing is wanted is not read


def test_tables_without_a_usable_embedding_give_none(tmp_path: Path) -> None:
    table = features(tmp_path / "a.parquet", None, [0, 0])
    for rows in (np.array([0]), np.array([], np.int64)):
        with gather_embeddings([table], np.zeros(len(rows), np.int64), rows) as (vectors, usable):
            assert len(vectors) == len(usable) == 0


def test_embeddings_of_different_lengths_within_a_table_are_refused(tmp_path: Path) -> None:
    table = features(tmp_path / "a.parquet", [1, 0], [1, 0, 0])
    with pytest.raises(DataError, match=r"a\.parquet: embeddings of different lengths \(2 to 3 numbers\)"):
        read_vectors(table, np.array([0, 1]))


def test_embeddings_of_other_lengths_are_refused_and_useless_ones_left_out(tmp_path: Path) -> None:
    useless = [sample(0, embedding=[0, 0]), sample(1, embedding=[math.nan, 1]), sample(2, embedding=[1, 0])]
    corpus = corpus_for(tmp_path)
    workspace = build(corpus, {"web-000000": [useless]})
    select_samples(corpus, workspace)
    clusters = dict(selection(workspace).select("uid", "cluster").iter_rows())
    assert [clusters[given["uid"]] for given in useless] == [None, None, 0]
    build(corpus, {"web-000001": [[sample(3, embedding=[1, 0, 0])]]})
    with pytest.raises(DataError, match=r"web-000001.*embeddings of 3 numbers, where others have 2"):
        select_samples(corpus, workspace)


def test_text_embeddings_are_gathered_from_the_tables_that_have_them(tmp_path: Path) -> None:
    older = features(tmp_path / "a.parquet", [1, 0], [0, 1])
    write_table(older, read_table(older).drop_columns("text_embedding"))
    rows = [{"uid": f"{number:032x}", "text_embedding": np.array([0.6, number], np.float16)} for number in range(2)]
    newer = UPath(tmp_path / "b.parquet")
    write_table(newer, table_of(rows, FEATURES))
    place, row = np.array([1, 0, 1]), np.array([1, 0, 0])
    with gather_embeddings([older, newer], place, row, column="text_embedding") as (vectors, usable):
        assert usable.tolist() == [0, 2]
        np.testing.assert_array_equal(vectors, np.array([[0.6, 1], [0.6, 0]], np.float16))
