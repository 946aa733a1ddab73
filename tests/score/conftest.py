"""Tiny real dual encoders, generated photographs, and parts with real tars."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest

from mmdata.config import Score
from mmdata.score.scorer import load_scorer
from tests.support.scoring import TINY, PartMaker, save_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny", seed=1)


@pytest.fixture
def tiny(tiny_folder: Path) -> Score:
    """A score section for the tiny model, on the CPU."""
    return Score(model=f"local-dir:{tiny_folder}", device="cpu", batch_size=8, threads=2)


@pytest.fixture
def scorer(tiny: Score):  # type: ignore[no-untyped-def]
    return load_scorer(tiny)


@pytest.fixture
def maker(tmp_path: Path, tiny: Score) -> PartMaker:
    return PartMaker(tmp_path / "workspace", tiny)


@pytest.fixture(scope="session")
def said() -> np.ndarray:
    pytest.importorskip("espeakng_loader")
    from mmdata.media.espeak import Speaker

    with Speaker() as speaker:
        return speaker.say("wash the green apple with cold water and cut it into small pieces")


@pytest.fixture
def named(tmp_path: Path) -> str:
    """A tiny model under a name, as open_clip's own are."""
    (tmp_path / "tiny-named.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-named.json")
    return "tiny-named"
