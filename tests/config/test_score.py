"""Section `score`: the demo scorer has no pretrained tag."""

from __future__ import annotations

from mmdata.config import Score


def test_the_demo_scorer_has_no_pretrained_tag_unless_one_is_given() -> None:
    assert Score(model="demo").pretrained is None
    assert Score(model="ViT-L-14").pretrained == "laion2b_s34b_b79k"
    assert Score(model="demo", pretrained="openai").pretrained == "openai"
