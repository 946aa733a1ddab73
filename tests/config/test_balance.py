"""Section `select.balance`: rules that contradict each other, keys without effect, and corpora of version 0.1."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mmdata.config import Balance
from mmdata.config.load import parse_corpus

CORPUS = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "a/*.parquet"}]}
OF_DOMAINS = {"max_per_host", "max_per_domain", "keep_of_domain", "domain_suffixes"}
OF_CONCEPTS = {"concepts_by", "concepts_top_k", "concepts_ignore_case"}


@pytest.mark.parametrize("mix", [{"text": 0.5}, {"text": 1.5, "image+text": -0.5}])
def test_the_shares_of_a_mix_are_shares_of_a_whole(mix: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        Balance(mix=mix)


@pytest.mark.parametrize(
    ("keys", "unused"),
    [
        ({}, {"size", "max_loss", *OF_DOMAINS}),
        ({"max_per_host": 5}, {"size", "max_loss"}),
        ({"size": 9}, {"max_loss", *OF_DOMAINS}),
        ({"mix": {"text": 1.0}}, {"alpha", "size", *OF_DOMAINS}),
        ({"mix": {"text": 1.0}, "size": 9}, {"alpha", "max_loss", *OF_DOMAINS}),
        ({"max_ratio": 2.0}, {"alpha", "size", "max_loss", *OF_DOMAINS}),
    ],
)
def test_keys_that_have_no_effect_are_known(keys: dict[str, Any], unused: set[str]) -> None:
    assert Balance(**keys).unused == {*unused, *OF_CONCEPTS}


def test_keys_of_concepts_count_with_a_list_of_concepts() -> None:
    unused = Balance().unused - OF_CONCEPTS
    assert Balance(concepts="c.txt").unused == {*unused, "concepts_top_k"}
    assert Balance(concepts="c.txt", concepts_by="embedding").unused == {*unused, "concepts_ignore_case"}
    assert Balance(concepts={"en": "c.txt"}).unused == {*unused, "concepts_top_k"}


@pytest.mark.parametrize("max_ratio", [2.0, None])
def test_a_corpus_that_writes_max_ratio_keeps_the_rule_that_it_had(max_ratio: float | None) -> None:
    corpus = parse_corpus({**CORPUS, "select": {"balance": {"max_ratio": max_ratio}}})
    assert corpus.select.balance.by_ratio
    again = parse_corpus(corpus.model_dump(mode="json"))
    assert again.select.balance == corpus.select.balance, "and so does the copy in a manifest"


def test_a_corpus_that_does_not_stays_with_alpha_when_it_is_read_back() -> None:
    corpus = parse_corpus(CORPUS)
    assert not corpus.select.balance.by_ratio
    assert parse_corpus(corpus.model_dump(mode="json")).select.balance == Balance()


@pytest.mark.parametrize(
    ("keys", "remedy"),
    [
        ({"alpha": 0.5, "max_ratio": 2}, "not both"),
        ({"max_ratio": 2, "size": 5}, "take max_ratio out"),
        ({"concepts_by": "embedding", "concepts": {"en": "c"}}, "takes one list"),
    ],
)
def test_two_rules_at_once_are_refused(keys: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValidationError, match=remedy):
        Balance(**keys)
