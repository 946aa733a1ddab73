"""The selection table: its columns, its pieces, and uids out of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from mmdata.samples import SELECTION, uid_words
from mmdata.select import selection_table
from mmdata.select.candidates import Slice
from mmdata.select.decide import Decision
from mmdata.select.rates import Rates
from mmdata.select.selection_table import hex_uids, write_selection
from mmdata.select.verdicts import Verdicts

UIDS = [f"{number:032x}" for number in (3, 5, 2**64, 2**64 + 1, 2**127)]


def write(path: Path) -> None:
    """Five rows of two slices: a duplicate, one below the cut, one held out, one repeated, one plain."""
    high, low = uid_words(pl.Series(UIDS))
    frame = pl.DataFrame(
        {
            "uid_high": high,
            "uid_low": low,
            "place": pl.Series([0, 1, 1, 0, 1], dtype=pl.UInt32),
            "copies": pl.Series([1, 2, 1, 1, 4], dtype=pl.Int32),
            "signature": pl.Series(["image+text", "text", "text", "image+text", "text"], dtype=pl.Categorical),
            "clip_score": pl.Series([0.25, None, None, 0.5, None], dtype=pl.Float32),
        }
    )
    verdicts = Verdicts(pl.Series([None, "filter:top_fraction", None, None, None]))
    verdicts.drop(np.array([0]), "duplicate:url", np.array([3]))
    decision = Decision(
        concept=np.array([-1, 0, 1, 0, -1], np.int32),
        concept_names=["a cat", "a dog"],
        rate=np.array([0.0, 0.0, 1.0, 0.5, 1.0]),
        repeats=np.array([0, 0, 1, 3, 1], np.int32),
        validation=np.array([False, False, True, False, False]),
        rates=Rates("s"),
    )
    slices = [Slice("web-000000", "0000", 2), Slice("web-000001", "0007", 3)]
    write_selection(UPath(path), frame, slices, verdicts, np.array([2, -1, 0, 2, -1], np.int32), decision)


def test_the_table_says_what_was_decided_on_each_row(tmp_path: Path) -> None:
    write(tmp_path / "selection.parquet")
    table = pq.read_table(tmp_path / "selection.parquet")
    assert table.schema.equals(SELECTION)
    assert table.to_pydict() == {
        "uid": UIDS,
        "part": ["web-000000", "web-000001", "web-000001", "web-000000", "web-000001"],
        "slice": ["0000", "0007", "0007", "0000", "0007"],
        "copies": [1, 2, 1, 1, 4],
        "signature": ["image+text", "text", "text", "image+text", "text"],
        "clip_score": [0.25, None, None, 0.5, None],
        "keep": [False, False, True, True, True],
        "reason": ["duplicate:url", "filter:top_fraction", None, None, None],
        "duplicate_of": [UIDS[3], None, None, None, None],
        "cluster": [2, None, 0, 2, None],
        "concept": [None, "a cat", "a dog", "a cat", None],
        "rate": [0.0, 0.0, 1.0, 0.5, 1.0],
        "repeats": [0, 0, 1, 3, 1],
        "split": [None, None, "validation", "train", "train"],
    }


@pytest.mark.parametrize("rows", [1, 2, 4, 5])
def test_a_table_written_in_pieces_holds_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    write(tmp_path / "whole.parquet")
    monkeypatch.setattr(selection_table, "_PIECE_ROWS", rows)
    write(tmp_path / "pieces.parquet")
    pieces = pq.ParquetFile(tmp_path / "pieces.parquet")
    assert pieces.metadata.num_row_groups == -(-5 // rows)
    assert pieces.read().equals(pq.read_table(tmp_path / "whole.parquet"))


@given(st.lists(st.integers(0, 2**128 - 1), unique=True))
def test_words_sort_as_uids_and_become_them_again(numbers: list[int]) -> None:
    uids = pl.Series([f"{number:032x}" for number in numbers], dtype=pl.String)
    high, low = uid_words(uids)
    assert hex_uids(high, low).to_pylist() == uids.to_list()
    assert np.lexsort((low, high)).tolist() == uids.arg_sort().to_list()
    some = np.array([*range(len(numbers)), -1])[::-1].astype(np.int32)
    assert hex_uids(high, low, some).to_pylist() == [None, *uids.to_list()[::-1]]
