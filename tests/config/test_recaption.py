"""Section `recaption`: off by default, and whether the model sees the source's caption."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmdata.config import Corpus, Recaption


def test_captions_are_made_only_where_a_model_is_named() -> None:
    assert not Recaption().is_on and Recaption(model="some/model").is_on


def test_a_prompt_rewrites_if_it_holds_the_caption() -> None:
    assert Recaption(prompt="Better: {caption}").rewrites
    assert not Recaption(prompt="Describe it.").rewrites and not Recaption().rewrites


@pytest.mark.parametrize("rule", ["min_agreement", "max_agreement"])
def test_a_rule_on_agreement_needs_a_captioner(rule: str) -> None:
    corpus = {"workspace": "w", "sources": [{"name": "a", "kind": "laion", "files": "x"}]}
    with pytest.raises(ValidationError, match=r"need recaption\.model"):
        Corpus.model_validate({**corpus, "select": {"filter": {rule: 0.5}}})
    Corpus.model_validate({**corpus, "select": {"filter": {rule: 0.5}}, "recaption": {"model": "one"}})
