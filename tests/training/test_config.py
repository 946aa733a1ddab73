"""Configuration: presets, a file and `--set` make one checked tree; mistakes name the key and the nearest known one."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest
from pydantic import ValidationError

from mmdata.errors import UserError
from training.config import Align, TrainConfig
from training.config_file import PRESETS, load_train_config


def test_the_defaults_are_a_configuration() -> None:
    assert load_train_config() == TrainConfig()


def test_a_local_loss_needs_gathered_gradients_only_if_it_is_local() -> None:
    with pytest.raises(ValidationError, match="wrong gradient"):
        Align(gather_with_grad=False)
    assert not Align(local_loss=False, gather_with_grad=False).gather_with_grad


def test_a_configuration_survives_being_written_down() -> None:
    """Checkpoints keep it as JSON."""
    for preset in PRESETS:
        config = load_train_config(preset)
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config
        text = (resources.files("training") / "presets" / f"{preset}.toml").read_text()
        assert TrainConfig.model_validate(tomllib.loads(text)) == config


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.llm.attention=flash_attention_2", "model.llm.sliding_window=64"],
        ["model.llm.attention=flash_attention_3", "parallel.precision=fp32"],
        ["model.llm.attention=flex_attention", "parallel.precision=fp16"],
    ],
)
def test_a_kernel_that_cannot_do_what_is_set_is_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError, match=r'Set attention = .*"auto"'):
        load_train_config("tiny", overrides=overrides)
    assert load_train_config("tiny", overrides=[*overrides, "model.llm.attention=auto"])
