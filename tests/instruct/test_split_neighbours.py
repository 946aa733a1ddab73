"""The neighbours of a split's samples, read from the features tables of a workspace."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.instruct.kept import read_kept
from mmdata.instruct.split_neighbours import neighbours_of
from mmdata.storage.tables import read_table, write_table
from tests.support import tiny_release
from tests.support.tiny_release import RELEASE, Tiny


def train_split(tiny: Tiny) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """The samples of the training split, and their negatives and references."""
    kept = read_kept(tiny.workspace, RELEASE, False, lambda done: None, tiny.corpus.recaption)
    frame = kept.frame.filter(pl.col("split") == "train")
    found = neighbours_of(tiny.corpus, frame, kept, ["match", "reference_image"])
    return frame, found.negative, found.reference


def test_neighbours_are_rows_of_the_same_split_with_captions_in_the_same_language(tiny: Tiny) -> None:
    frame, negative, reference = train_split(tiny)
    for neighbours in (negative, reference):
        has = np.flatnonzero(neighbours >= 0)
        assert len(has) > 30
        languages = frame["caption_lang"].to_numpy()
        assert (languages[has] == languages[neighbours[has]]).all()
        assert (neighbours[has] != has).all()


def test_tables_without_text_embeddings_give_references_only_and_name_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny = tiny_release.build(tmp_path, samples=80)
    _, _, before = train_split(tiny)
    for path in (tmp_path / "parts").glob("*/features/*.parquet"):
        table = tiny.workspace.root / str(path.relative_to(tmp_path))
        write_table(table, read_table(table).drop_columns(["text_embedding"]))
    with caplog.at_level(logging.WARNING):
        _, negative, reference = train_split(tiny)
    assert (negative == -1).all()
    assert (reference == before).all()
    assert "match gives no record: no caption has a text embedding" in caplog.text


def test_no_task_that_needs_neighbours_reads_no_vectors(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.instruct.split_neighbours.gather_embeddings", None)
    kept = read_kept(tiny.workspace, RELEASE, False, lambda done: None, tiny.corpus.recaption)
    assert (neighbours_of(tiny.corpus, kept.frame, kept, ["caption"]).negative == -1).all()
