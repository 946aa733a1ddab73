"""Samples are found by uid and copy, and a split is sorted once however many are looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.workspace.layout import Workspace
from training.data import records, uid_index
from training.data.records import open_records
from training.data.sample_index import SAMPLE, TrainingRelease, open_training_release
from training.data.uid_index import UidIndex

COLUMNS = ("high", "low", "copy")


def keys_of(samples: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({name: np.ascontiguousarray(samples[name]) for name in COLUMNS})


def test_rows_are_found_by_uid_and_copy(mixed: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(mixed.root), tmp_path)
    samples, index = release.samples("train"), release.uid_index("train")
    keys = keys_of(samples[[7, 3, 19]])
    assert index.find(keys).tolist() == [7, 3, 19]
    assert index.find(keys.with_columns(pl.lit(9, pl.UInt16).alias("copy"))).tolist() == [-1] * 3


def test_every_copy_is_found_where_uids_share_their_first_half(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = np.zeros(3000, SAMPLE)
    samples["high"] = rng.integers(0, 2**64, 40, np.uint64)[rng.integers(0, 40, 3000)]
    samples["low"] = rng.permutation(3000) // 3
    samples["copy"] = rng.permutation(3000)
    index = UidIndex(samples, tmp_path / "index")
    chosen = rng.integers(0, 3000, 5000)
    assert np.array_equal(index.find(keys_of(samples[chosen])), chosen)
    strange = keys_of(samples[:50]).with_columns(pl.col("low") + 5000)
    ends = pl.DataFrame({"high": [0, 2**64 - 1], "low": [0, 0], "copy": [0, 0]}, schema=strange.schema)
    assert set(index.find(pl.concat([strange, ends])).tolist()) == {-1}
    assert index.find(strange[:0]).tolist() == []


def test_a_split_is_sorted_once_for_all_records(
    instructed: TrainingRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = open_training_release(str(instructed.release.folder), tmp_path)
    write, written = uid_index._write, []
    monkeypatch.setattr(uid_index, "_write", lambda samples, folder: written.append(folder) or write(samples, folder))
    monkeypatch.setattr(records, "_BATCH_LINES", 3)
    indexed = [open_records(release, form, "train", None) for form in ("record", "llava", "chat")]
    assert len(indexed[0].index) > 9, "several batches of lines"
    assert len(written) == 1
    expected = open_records(instructed, "record", "train", None)
    assert np.array_equal(indexed[0].rows, expected.rows)
