"""Tiny real dual encoders, generated photographs, and parts with real tars."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config import Score
from mmdata.score.scorer import load_scorer
from tests.support.scoring import PartMaker, save_model


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
