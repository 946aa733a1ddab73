"""Captioners by name: functions of the user's own, and what a wrong name says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mmdata.config import Recaption
from mmdata.errors import UserError
from mmdata.score.captioner import load_captioner
from tests.support import captioning


def test_a_function_of_the_users_own_is_called_with_the_section() -> None:
    settings = Recaption(model="one", captioner="tests.support.captioning:by_hash")
    captioner = load_captioner(settings)
    assert isinstance(captioner, captioning.ByHash) and captioner.name == "one"
    assert load_captioner(settings) is captioner
    assert load_captioner(settings.model_copy(update={"model": "two"})).name == "two"


def test_changed_files_of_a_model_load_it_again(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    settings = Recaption(model=str(tmp_path), captioner="tests.support.captioning:by_hash")
    captioner = load_captioner(settings)
    (tmp_path / "config.json").write_text("{ }")
    assert load_captioner(settings) is not captioner


@pytest.mark.parametrize("name", ["no.such.module:function", "tests.support.captioning:nothing"])
def test_a_function_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"recaption.captioner: '{name}' cannot be imported"):
        load_captioner(Recaption(model="one", captioner=name))


@pytest.mark.parametrize("name", ["llava", "module:", ":function", ""])
def test_what_is_no_function_is_refused_when_corpus_yaml_is_read(name: str) -> None:
    with pytest.raises(ValidationError, match="neither `transformers` nor `module:function`"):
        Recaption(captioner=name)
