"""Sections `engine` and `train`: presets, settings over them, and where slices run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config import Engine
from mmdata.config.load import parse_corpus
from mmdata.errors import UserError

MINIMAL = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "inbox/*.parquet"}]}


def test_training_is_tiny_unless_told_otherwise_and_a_train_toml_names_its_own_preset(tmp_path: Path) -> None:
    assert parse_corpus(MINIMAL).train.preset == "tiny"
    train = parse_corpus({**MINIMAL, "train": {"config": "train.toml", "output": "models"}}, base=tmp_path).train
    assert (train.preset, train.config, train.output) == (None, str(tmp_path / "train.toml"), str(tmp_path / "models"))
    assert parse_corpus({**MINIMAL, "train": {"config": "t.toml", "preset": "l14-1b"}}).train.preset == "l14-1b"
    with pytest.raises(UserError, match=r"key=value, such as align\.lr=0\.001"):
        parse_corpus({**MINIMAL, "train": {"set": ["align.lr"]}})


def test_slices_report_progress_only_from_the_main_process() -> None:
    assert Engine().in_this_process
    assert not Engine(workers=2).in_this_process
    assert not Engine(backend="ray").in_this_process
