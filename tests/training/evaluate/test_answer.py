"""Answers and captions, asked for as the stage has learned them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import DataError, UserError
from tests.support.trained import checkpoint_of, config_of, photo
from training.evaluate.answer import answer
from training.stages.stage_model import load_model


def test_a_model_that_only_captions_takes_no_question(tmp_path: Path) -> None:
    built, _ = load_model(checkpoint_of(tmp_path, "joint", config_of()))
    with pytest.raises(UserError, match="takes no question"):
        answer(built, [photo(0)], "What is this?")
    with pytest.raises(DataError, match="cannot be decoded"):
        answer(built, [b"no picture"])
