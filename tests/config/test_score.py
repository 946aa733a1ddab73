"""Section `score`, and what the selection may use of it."""

from __future__ import annotations

import pytest

from mmdata.config import Corpus, Score
from mmdata.config.load import parse_corpus
from mmdata.errors import UserError

SOURCE = {"name": "web", "kind": "laion", "files": "x"}


def test_the_demo_scorer_has_no_pretrained_tag_unless_one_is_given() -> None:
    assert Score(model="demo").pretrained is None
    assert Score(model="ViT-L-14").pretrained == "laion2b_s34b_b79k"
    assert Score(model="demo", pretrained="openai").pretrained == "openai"


def corpus_of(score: dict, select: dict) -> Corpus:
    return parse_corpus({"workspace": "w", "sources": [SOURCE], "score": {"model": "demo", **score}, "select": select})


@pytest.mark.parametrize("name", ["nsfw", "text_area", "dfn"])
def test_a_score_can_be_used_only_if_it_is_computed(name: str) -> None:
    rules = {"filter": {"max_scores": {name: 0.5}}}
    with pytest.raises(UserError, match=f"uses the score '{name}', which is not defined"):
        corpus_of({}, rules)
    turned_on = {"networks": {"dfn": {"model": "demo"}}} if name == "dfn" else {name: True}
    assert corpus_of(turned_on, rules).select.used_scores == (name,)


def test_two_scores_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"select\.scores\.nsfw: section score computes a score of this name"):
        corpus_of({"nsfw": True}, {"scores": {"nsfw": {"kind": "column", "column": "x"}}})


@pytest.mark.parametrize(
    ("score", "rules", "bound"),
    [
        ({"nsfw": True}, {"max_punsafe": 0.4}, {"nsfw": 0.4}),
        ({"nsfw": True}, {"max_punsafe": 0.4, "max_scores": {"nsfw": 0.9}}, {"nsfw": 0.9}),
        ({"nsfw": True}, {}, {}),
        ({}, {"max_punsafe": 0.4}, {}),
    ],
)
def test_max_punsafe_bounds_the_computed_score_too(score: dict, rules: dict, bound: dict) -> None:
    assert corpus_of(score, {"filter": rules}).select.filter.max_scores == bound
