"""Our own exported models as captioners: they say what `training.evaluate.answer` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmdata.config import Recaption
from mmdata.errors import UserError
from mmdata.score.captioner import load_captioner
from tests.support.trained import checkpoint_of, config_of, photo
from training.evaluate.answer import answer
from training.export.export import export
from training.export.exported import load_exported
from training.export.exported_captioner import DEFAULT_QUESTION

CAPTIONER = "training.export.exported_captioner:load"


def section(folder: Path, **settings: Any) -> Recaption:
    return Recaption(model=str(folder), captioner=CAPTIONER, device="cpu", max_tokens=6, **settings)


@pytest.mark.parametrize("stage", [pytest.param("joint", marks=pytest.mark.slow), "instruct"])
def test_it_says_what_the_model_answers(tmp_path: Path, stage: str) -> None:
    export(checkpoint_of(tmp_path, stage, config_of()), tmp_path / "out")
    pictures = [photo(0), b"no picture", photo(1)]
    answers = load_captioner(section(tmp_path / "out")).answers(pictures, [None] * 3)
    model = load_exported(tmp_path / "out")
    question = DEFAULT_QUESTION if stage == "instruct" else ""
    assert [answers[at].text for at in (0, 2)] == [answer(model, [pictures[at]], question, 6) for at in (0, 2)]
    assert answers[1].problem == "undecodable"
    assert answers[0].problem == "too_long"  # of random weights no answer ends in six tokens


def test_a_question_goes_to_a_model_of_stage_instruct_only(tmp_path: Path) -> None:
    export(checkpoint_of(tmp_path, "instruct", config_of()), tmp_path / "out")
    captioner = load_captioner(section(tmp_path / "out"))
    asked = captioner.answers([photo(0)] * 2, ["What is this?", "Where?"])
    assert [a.text for a in asked] == [
        answer(load_exported(tmp_path / "out"), [photo(0)], question, 6) for question in ("What is this?", "Where?")
    ]
    export(checkpoint_of(tmp_path, "joint", config_of()), tmp_path / "joint-out")
    with pytest.raises(UserError, match=r"recaption\.prompt.*stage `joint`.*Remedy: leave the prompt out"):
        load_captioner(section(tmp_path / "joint-out", prompt="What is this?"))


@pytest.mark.slow
def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    export(checkpoint_of(tmp_path, "joint", config_of()), tmp_path / "out")
    export(checkpoint_of(tmp_path, "joint", config_of("cross_attention", "late")), tmp_path / "other")
    one, other = (load_captioner(section(tmp_path / name)) for name in ("out", "other"))
    assert one.fingerprint != other.fingerprint
    assert load_captioner(section(tmp_path / "out")).fingerprint == one.fingerprint
