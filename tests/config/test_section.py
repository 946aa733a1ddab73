"""Paths in corpus.yaml: a relative one counts from its folder, anything else stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mmdata.config import Shards
from mmdata.config.load import parse_corpus

MINIMAL = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "inbox/*.parquet"}]}


def test_a_checkpoint_beside_the_file_is_found_and_a_tag_stays_a_tag(tmp_path: Path) -> None:
    (tmp_path / "clip.safetensors").write_bytes(b"")
    beside = parse_corpus({**MINIMAL, "score": {"model": "ViT-B-32", "pretrained": "clip.safetensors"}}, base=tmp_path)
    assert beside.score.pretrained == str(tmp_path / "clip.safetensors")
    assert parse_corpus(MINIMAL, base=tmp_path).score.pretrained == "laion2b_s34b_b79k"


def test_object_store_paths_stay_as_they_are(tmp_path: Path) -> None:
    data = {"workspace": "s3://bucket/w", "sources": [{**MINIMAL["sources"][0], "files": "s3://bucket/in/*.parquet"}]}
    corpus = parse_corpus(data, base=tmp_path)
    assert (corpus.workspace, corpus.sources[0].files) == ("s3://bucket/w", "s3://bucket/in/*.parquet")


def test_every_path_counts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    data = {
        **MINIMAL,
        "optout": ["lists/a.txt", {"path": "https://example.org/b.txt"}],
        "score": {"model": "models/mine", "audio_model": "laion/clap", "transcriber": "models/mine"},
        "select": {"balance": {"concepts": "concepts.txt"}},
        "train": {"config": "train.toml", "output": "/models"},
        "alerts": {"webhook_file": "secret"},
        "observe": {"metrics_textfile": "mmdata.prom"},
    }
    corpus = parse_corpus(data, base=tmp_path)
    assert [entry.path for entry in corpus.optout] == [str(tmp_path / "lists/a.txt"), "https://example.org/b.txt"]
    assert corpus.score.model == corpus.score.transcriber == str(tmp_path / "models" / "mine")
    assert corpus.score.audio_model == "laion/clap", "no such folder: a hub id"
    assert corpus.select.balance.concepts == str(tmp_path / "concepts.txt")
    assert (corpus.train.config, corpus.train.output) == (str(tmp_path / "train.toml"), "/models")
    assert corpus.alerts.webhook_file == str(tmp_path / "secret")
    assert corpus.observe.metrics_textfile == str(tmp_path / "mmdata.prom")
    assert parse_corpus(data).select.balance.concepts == "concepts.txt", "without a folder, paths stay as they are"


def test_a_section_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Shards().shard_mb = 1
