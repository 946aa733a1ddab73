"""What decides the fingerprint of a stage; that none changes by an update is in test_fingerprints_stay.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdata.config import Corpus, Score
from mmdata.config.load import parse_corpus
from mmdata.engine.stage_fingerprints import captioner_files, named_settings, scorer_settings, stage_settings
from mmdata.workspace.layout import PART_STAGES, Part, PartStage

PART = Part("web-000000", "web", "a.parquet", 0, 10, "d")


def corpus_of(**sections: object) -> Corpus:
    web = {"name": "web", "kind": "laion", "files": "inbox/*.parquet"}
    return parse_corpus({"workspace": "w", "sources": [web], **sections})


def test_settings_of_speed_and_patience_decide_nothing() -> None:
    faster = corpus_of(
        download={"threads": 3, "timeout_s": 99, "retries": 7}, score={"batch_size": 9, "device": "cpu", "threads": 2}
    )
    for stage in PART_STAGES:
        assert stage_settings(faster, PART, stage) == stage_settings(corpus_of(), PART, stage)


@pytest.mark.parametrize(
    ("stage", "sections", "name"),
    [
        ("media", {"download": {"image_size": 99}}, "download.image_size"),
        ("features", {"score": {"precision": "bf16"}}, "score.precision"),
        ("features", {"score": {"nsfw": True}}, "score.nsfw"),
    ],
)
def test_a_setting_that_decides_is_named(stage: PartStage, sections: dict[str, object], name: str) -> None:
    corpus = corpus_of(**sections)
    assert stage_settings(corpus, PART, stage) != stage_settings(corpus_of(), PART, stage)
    before, after = (named_settings(settings, PART, stage) for settings in (corpus_of(), corpus))
    assert [key for key in after if after[key] != before.get(key)] == [name]


def test_a_local_captioner_counts_by_the_files_that_decide_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("no setting")
    corpus = corpus_of(recaption={"model": str(tmp_path)})
    assert [entry[:2] for entry in captioner_files(corpus.recaption)] == [["model.safetensors", 7]]


def test_a_checkpoint_is_known_by_what_it_is_and_not_by_where_it_lies(tmp_path: Path) -> None:
    here, there = tmp_path / "a" / "clip.safetensors", tmp_path / "b" / "clip.safetensors"
    for path in (here, there):
        path.parent.mkdir()
        path.write_bytes(b"weights")
        os.utime(path, (1, 1))
    settings = [scorer_settings(Score(model="ViT-B-32", pretrained=str(path))) for path in (here, there)]
    assert settings[0] == settings[1]
    there.write_bytes(b"other weights")
    assert scorer_settings(Score(model="ViT-B-32", pretrained=str(there))) != settings[0]
