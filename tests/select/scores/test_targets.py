"""Target sets: pictures, tables and releases; vectors of other scorers are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mmdata.config import Score
from mmdata.config.select_scores import Target
from mmdata.errors import UserError
from mmdata.score.scorer import load_scorer
from mmdata.select.scores.targets import TargetVectors, load_target, target_path
from mmdata.select.stage import select_samples
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Workspace
from tests.support.pair_vectors import pairs, unit_vectors
from tests.support.selecting import SCORER, build, corpus_for, publish, sample, selection

DEMO = Score(model="demo")


def load(workspace: Workspace, width: int, **given: Any) -> TargetVectors:
    texts = given.pop("with_texts", False)
    return load_target(workspace, Target(**given), DEMO, SCORER["fingerprint"], width, texts)


def table_of_vectors(path: Path, vectors: np.ndarray, scorer: str | None = None, **further: Any) -> None:
    table = pa.table({"embedding": pa.array(list(vectors), pa.list_(pa.float32())), **further})
    write_table(Workspace(str(path.parent)).root / path.name, table.replace_schema_metadata(
        {"scorer": json.dumps({"name": "CLIP", "fingerprint": scorer})} if scorer else None
    ))  # fmt: skip


def test_the_vectors_of_a_table_are_scaled_to_unit_length(tmp_path: Path) -> None:
    vectors = unit_vectors(20, 8).astype(np.float32)
    (tmp_path / "tables").mkdir()
    table_of_vectors(tmp_path / "tables" / "b.parquet", vectors[10:])
    table_of_vectors(tmp_path / "tables" / "a.parquet", np.vstack([3 * vectors[:10], np.zeros((1, 8)), [[np.nan] * 8]]))
    target = load(Workspace(str(tmp_path / "w")), 8, table=str(tmp_path / "tables"))
    assert np.abs(target.pictures.astype(np.float32) - vectors).max() < 1e-3
    assert target.pictures.dtype == np.float16


def test_the_vectors_are_made_once_and_again_if_a_file_changes(tmp_path: Path) -> None:
    workspace, path = Workspace(str(tmp_path / "w")), tmp_path / "t.parquet"
    table_of_vectors(path, unit_vectors(5, 8))
    first = load(workspace, 8, table=str(path))
    kept = target_path(workspace, Target(table=str(path)), SCORER["fingerprint"], False)
    assert kept.exists()
    kept.write_bytes(b"damaged")
    assert load(workspace, 8, table=str(path)).digest == first.digest
    table_of_vectors(path, unit_vectors(6, 8))
    assert len(load(workspace, 8, table=str(path)).pictures) == 6


def test_captions_come_from_the_text_column(tmp_path: Path) -> None:
    pictures, texts = pairs(5, 8)
    table_of_vectors(
        tmp_path / "t.parquet", pictures, text_embedding=pa.array(list(texts), pa.list_(pa.float16()))
    )  # fmt: skip
    target = load(Workspace(str(tmp_path / "w")), 8, table=str(tmp_path / "t.parquet"), with_texts=True)
    assert target.texts is not None
    assert np.abs(target.texts.astype(float) - texts).max() < 1e-3


def test_pictures_are_embedded_by_the_scorer_of_the_corpus_and_unreadable_ones_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "of a class"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (40, 60, 3), np.uint8) for _ in range(3)]
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture")
    model = load_scorer(DEMO)
    workspace = Workspace(str(tmp_path / "w"))
    target = load_target(workspace, Target(pictures=str(folder.parent)), DEMO, model.fingerprint, model.dim)
    assert target.pictures.shape == (3, model.dim)
    with pytest.raises(UserError, match=r"would be embedded by demo .*Remedy:"):
        load_target(workspace, Target(pictures=str(folder.parent)), DEMO, "another", model.dim)
    with pytest.raises(UserError, match=r"pictures without captions"):
        load_target(workspace, Target(pictures=str(folder.parent)), DEMO, model.fingerprint, model.dim, True)


def test_the_validation_split_of_a_release_is_a_target(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, shards={"validation_fraction": 0.3})
    vectors = unit_vectors(40, 8)
    samples = [sample(number, embedding=vectors[number]) for number in range(40)]
    workspace = build(corpus, {"web-000000": [samples[:20], samples[20:]]})
    release_id = select_samples(corpus, workspace).version
    publish(workspace, str(release_id))
    held = selection(workspace)
    held_out = set(held.filter(held["split"] == "validation")["uid"])
    expected = {sample["embedding"].tobytes() for sample in samples if sample["uid"] in held_out}
    target = load(workspace, 8, release=release_id)
    assert len(target.pictures) == len(held_out) > 0
    assert len(expected) == len(held_out)
    close = [min(np.abs(vectors.astype(float) - row.astype(float)).max(axis=1)) for row in target.pictures]
    assert max(close) < 1e-3
    with pytest.raises(UserError, match=rf"nothing is not a release of this workspace \(there are: {release_id}\)"):
        load(workspace, 8, release="nothing")


def test_what_cannot_be_a_target_is_refused_with_a_remedy(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "w"))
    table_of_vectors(tmp_path / "other.parquet", unit_vectors(3, 8), scorer="f00")
    table_of_vectors(tmp_path / "wide.parquet", unit_vectors(3, 9))
    table_of_vectors(tmp_path / "zero.parquet", np.zeros((3, 8)))
    (tmp_path / "empty").mkdir()
    cases = [
        ({"table": str(tmp_path / "other.parquet")}, "was made by CLIP .f00., and the parts were by 00c0ffee"),
        ({"table": str(tmp_path / "wide.parquet")}, "has vectors of 9 numbers, and the corpus of 8"),
        ({"table": str(tmp_path / "zero.parquet")}, "holds no vector that is not zero"),
        ({"table": str(tmp_path / "wide.parquet"), "column": "emb"}, "has no column 'emb' in wide.parquet"),
        ({"pictures": str(tmp_path / "empty")}, "a set of pictures, but there are none in it"),
        ({"table": str(tmp_path / "nowhere.parquet")}, "no such file or folder"),
    ]
    for given, message in cases:
        with pytest.raises(UserError, match=f"{message}.*Remedy:"):
            load(workspace, 8, **given)
