"""Captions are judged by the true kind, whatever the planted caption says."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mmdata.demo.named_kinds import NamedKinds, named_kinds


def test_kinds_are_words_of_the_caption_and_unknown_samples_do_not_count(tmp_path: Path) -> None:
    truth = tmp_path / "truth.parquet"
    pl.DataFrame({"uid": ["a", "b", "c"], "kind": ["food", "face", "hand"]}).write_parquet(truth)
    answers = [
        {"uid": "a", "generated": "a drawing of Pie (FOOD)", "with_other_picture": "seafood"},
        {"uid": "b", "generated": "faces", "with_other_picture": "the face of a clock"},
        {"uid": "c", "generated": "hand"},  # no other picture: a sample without pictures
        {"uid": "d", "generated": "food", "with_other_picture": "food"},  # of another source
    ]
    assert named_kinds(truth, answers) == NamedKinds(pictures=2, right=0.5, with_other_pictures=0.5)
    assert named_kinds(truth, answers[2:]) is None
