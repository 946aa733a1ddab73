"""Names of scorers, understood without loading a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config import Score
from mmdata.config.scorers import is_local_checkpoint, resolved, scorer_name


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "ViT-B-32/laion2b_s34b_b79k"),
        ({"model": "ViT-B-32", "pretrained": "/home/someone/run.pt"}, "ViT-B-32/run.pt"),
        ({"model": "local-dir:/home/someone/mine"}, "local-dir:mine"),
        ({"model": "hf-hub:laion/x"}, "hf-hub:laion/x"),
        ({"model": "demo"}, "demo (small offline scorer)"),
    ],
)
def test_a_name_tells_the_model_and_no_folder_of_a_user(settings: dict[str, str], name: str) -> None:
    assert scorer_name(Score.model_validate(settings)) == name


@pytest.mark.parametrize("place", ["", "scorer", "align/scorer"])
def test_a_folder_that_training_wrote_is_a_local_scorer(tmp_path: Path, place: str) -> None:
    towers = tmp_path / place
    towers.mkdir(parents=True, exist_ok=True)
    (towers / "open_clip_config.json").write_text("{}")
    score = Score(model=str(tmp_path))
    assert resolved(score).model == f"local-dir:{towers}"
    assert is_local_checkpoint(score)
    assert resolved(Score(model="ViT-B/32")).model == "ViT-B/32"


def test_a_checkpoint_file_may_change_under_its_name_and_a_tag_may_not(tmp_path: Path) -> None:
    (tmp_path / "run.pt").touch()
    assert is_local_checkpoint(Score(model="ViT-B-32", pretrained=str(tmp_path / "run.pt")))
    assert not is_local_checkpoint(Score())
