"""Section `recaption`: off by default, and whether the model sees the source's caption."""

from __future__ import annotations

from mmdata.config import Recaption


def test_captions_are_made_only_where_a_model_is_named() -> None:
    assert not Recaption().is_on and Recaption(model="some/model").is_on


def test_a_prompt_rewrites_if_it_holds_the_caption() -> None:
    assert Recaption(prompt="Better: {caption}").rewrites
    assert not Recaption(prompt="Describe it.").rewrites and not Recaption().rewrites
