"""Scores by slice: computed once, kept by the digest of the slice, complete where vectors are missing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmdata.errors import DataError
from mmdata.select.candidates import Slice
from mmdata.select.scores import score_columns
from mmdata.select.scores.bank import bank_path
from mmdata.select.scores.score_columns import VectorScores, make_scores, vector_width
from mmdata.storage.atomic import publish_json
from mmdata.workspace.layout import Workspace
from tests.support.pair_vectors import pairs
from tests.support.selecting import SCORER, build, corpus_for, sample

PICTURES, TEXTS = pairs(40, 8, seed=6)
SELECT: dict[str, Any] = {
    "scores": {
        "loss": {"kind": "s-clip-loss", "bank_pairs": 16},
        "spread": {"kind": "vas", "bank_pairs": 16},
        "cross": {"kind": "vas", "towers": "both", "bank_pairs": 16},
        "given": {"kind": "column", "column": "similarity"},
        "unused": {"kind": "norm-sim", "target": {"table": "/nowhere.parquet"}},
    },
    "keep_scores": ["loss", "spread", "cross", "given"],
}
SLICES = [Slice("web-000000", "0000", 25), Slice("web-000000", "0001", 15)]


def samples() -> list[dict[str, Any]]:
    """Forty pairs; every eighth has no vector of its caption, every tenth none at all."""
    made = []
    for number in range(40):
        vectors: dict[str, Any] = {"embedding": PICTURES[number], "text_embedding": TEXTS[number]}
        if number % 8 == 3:
            vectors["text_embedding"] = None
        if number % 10 == 7:
            vectors = {"embedding": None, "text_embedding": None, "clip_score": None}
        made.append(sample(number, **vectors))
    return made


@pytest.fixture
def scores(tmp_path: Path) -> VectorScores:
    corpus = corpus_for(tmp_path, SELECT)
    rows = samples()
    workspace = build(corpus, {"web-000000": [rows[:25], rows[25:]]})
    return make_scores(corpus, workspace, SLICES, SCORER["fingerprint"])


def test_rows_that_lack_a_vector_have_no_score_and_the_others_have(scores: VectorScores) -> None:
    columns = {column.name: column for column in scores.of_slice("web-000000", "0000")}
    assert list(columns) == ["score_loss", "score_spread", "score_cross"]
    order = sorted(range(25), key=lambda number: samples()[number]["uid"])
    for place, number in enumerate(order):
        has_picture, has_text = number % 10 != 7, number % 10 != 7 and number % 8 != 3
        assert math.isfinite(columns["score_spread"][place]) == has_picture
        assert math.isfinite(columns["score_loss"][place]) == has_text
        assert math.isfinite(columns["score_cross"][place]) == has_text


def test_scores_are_computed_once_and_read_again(scores: VectorScores, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scores.of_slice("web-000000", "0001")
    with monkeypatch.context() as patch:
        patch.setattr(score_columns, "score_table", lambda *given: pytest.fail("computed again"))
        again = scores.of_slice("web-000000", "0001")
    assert all(one.equals(other) for one, other in zip(first, again, strict=True))
    damaged = next((scores.workspace.scores_dir / scores.fingerprints["loss"]).glob("*.npy"))
    damaged.write_bytes(b"\x93NUMPY")
    mended = scores.of_slice("web-000000", "0001")
    assert all(one.equals(other) for one, other in zip(first, mended, strict=True))


def test_a_slice_without_a_stamp_is_named(scores: VectorScores) -> None:
    with pytest.raises(DataError, match=r"part web-000000, slice 0009: its stamp is missing.*--redo"):
        scores.of_slice("web-000000", "0009")


def test_the_scores_in_use_are_noted_and_what_is_unused_is_never_read(scores: VectorScores) -> None:
    used = json.loads((scores.workspace.scores_dir / "used.json").read_text())["used"]
    assert used == sorted(scores.fingerprints.values())
    assert set(scores.fingerprints) == {"loss", "spread", "cross"}
    assert bank_path(scores.workspace.scores_dir, SCORER["fingerprint"], 16).exists()


def test_old_rows_keep_their_scores_to_the_bit_when_the_corpus_grows(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, SELECT)
    rows = samples()
    workspace = build(corpus, {"web-000000": [rows[:25]]})
    before = _by_uid(make_scores(corpus, workspace, SLICES[:1], SCORER["fingerprint"]), workspace, ["0000"])
    workspace = build(corpus, {"web-000000": [rows[30:] + rows[:10], rows[10:30]]})
    slices = [Slice("web-000000", "0000", 20), Slice("web-000000", "0001", 20)]
    after = _by_uid(make_scores(corpus, workspace, slices, SCORER["fingerprint"]), workspace, ["0000", "0001"])
    assert before.join(after, on="uid").height == 25
    assert before.equals(after.filter(pl.col("uid").is_in(before["uid"].to_list())))


def _by_uid(scores: VectorScores, workspace: Workspace, names: list[str]) -> pl.DataFrame:
    frames = [
        pl.DataFrame(
            [
                pl.read_parquet(str(workspace.table("web-000000", "features", name)), columns=["uid"])["uid"],
                *scores.of_slice("web-000000", name),
            ]
        )
        for name in names
    ]
    return pl.concat(frames).sort("uid").fill_nan(None)


def test_vectors_have_the_width_of_the_first_that_there_is(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path)
    workspace = build(corpus, {"web-000000": [[sample(0, embedding=None)], [sample(1, embedding=np.ones(5))]]})
    tables = [workspace.table("web-000000", "features", name) for name in ("0000", "0001")]
    assert (vector_width(tables), vector_width(tables[:1]), vector_width([])) == (5, 0, 0)


def test_a_forgotten_sample_is_in_no_bank_after_the_next_selection(tmp_path: Path) -> None:
    corpus = corpus_for(tmp_path, SELECT)
    rows = samples()
    workspace = build(corpus, {"web-000000": [rows[:25], rows[25:]]})
    make_scores(corpus, workspace, SLICES, SCORER["fingerprint"])
    path = bank_path(workspace.scores_dir, SCORER["fingerprint"], 16)
    gone = next(row for row in rows if row["uid"].encode() in path.read_bytes())
    publish_json(workspace.root / "takedown" / "standing.json", {"digest": "a list", "taken_out": 0})
    nothing = dict.fromkeys(("embedding", "text_embedding", "clip_score", "url", "caption"))
    redacted = [row | nothing | {"problem": "opt_out"} if row is gone else row for row in rows]
    build(corpus, {"web-000000": [redacted[:25], redacted[25:]]})
    make_scores(corpus_for(tmp_path), workspace, SLICES, SCORER["fingerprint"])
    assert gone["uid"].encode() not in path.read_bytes(), "although no score is used"
