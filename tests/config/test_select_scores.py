"""Section `select.scores` and the rules that use scores by name: what is accepted, and what a mistake is told."""

from __future__ import annotations

from typing import Any

import pytest

from mmdata.config import Corpus, Select
from mmdata.config.load import parse_corpus
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.releases.draft import release_inputs
from mmdata.workspace.layout import Workspace

LOSS = {"kind": "s-clip-loss"}
EVERY = {
    "loss": LOSS,
    "near": {"kind": "norm-sim", "target": {"release": "r"}, "p": 2},
    "spread": {"kind": "vas"},
    "moment": {"kind": "vas", "target": {"release": "r"}},
    "given": {"kind": "column", "column": "similarity"},
}


def corpus(select: dict[str, Any], **sections: Any) -> Corpus:
    source = {"name": "web", "kind": "laion", "files": "a/*.parquet"}
    return parse_corpus({"workspace": "w", "sources": [source], "select": select, **sections})


def test_scores_are_used_once_in_the_order_of_the_rules_and_the_cosine_has_a_column_already() -> None:
    rules = {
        "min_scores": {"given": 0.1, "clip_score": 0.2},
        "max_scores": {"given": 0.9},
        "top": [{"weights": {"loss": 1, "clip_score": 1}, "fraction": 0.5}, {"score": "sharpness", "fraction": 0.9}],
    }
    select = corpus({"scores": EVERY, "filter": rules, "keep_scores": ["spread"]}).select
    assert select.used_scores == ("given", "loss", "sharpness", "spread")
    assert [entry.name for entry in select.filter.top] == ["loss+clip_score", "sharpness"]


@pytest.mark.parametrize(
    ("name", "reads"), [("loss", True), ("near", False), ("spread", True), ("moment", False), ("given", False)]
)
def test_text_vectors_are_needed_where_a_used_score_reads_them(name: str, reads: bool) -> None:
    assert Select.model_validate({"scores": EVERY, "keep_scores": [name]}).needs_text_embeddings == reads
    assert not Select.model_validate({"scores": EVERY}).needs_text_embeddings


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"filter": {"min_scores": {"clp_score": 1}}}, "score 'clp_score', .* did you mean 'clip_score'.*Remedy"),
        ({"scores": {"a": LOSS | {"temperatur": 1}}}, "s-clip-loss.temperatur`: did you mean `temperature`"),
        ({"scores": {"a": {"kind": "norm-sim", "target": {"tabel": "x"}}}}, "target.tabel`: did you mean `table`"),
        ({"filter": {"top": [{"scor": "x", "fraction": 1}]}}, r"top.0.scor`: did you mean `score`"),
        ({"scores": {"a": {"kind": "norm-sim", "target": {}}}}, "a target is one of pictures, table and release"),
        ({"scores": {"a b": LOSS}}, "'a b' is no name of a score"),
        ({"scores": {"sharpness": LOSS}}, "sharpness is a measure of the features tables already"),
        ({"scores": {"a": {"kind": "s-clip"}}}, "does not match any of the expected tags"),
        ({"filter": {"top": [{"fraction": 1}]}}, "set either score or weights"),
        ({"filter": {"min_clip_score": 0.1, "min_scores": {"clip_score": 0.2}}}, "they are the same rule"),
        ({"filter": {"top": [{"score": "clip_score", "fraction": f} for f in (0.1, 0.2)]}}, "two entries for clip"),
        ({"keep_scores": ["audio_score"]}, "audio_score in section select needs score.audio_model"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_the_nearest_name(select: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        corpus(select)


def test_scores_over_captions_are_refused_where_captions_are_replaced() -> None:
    chosen = {"scores": EVERY, "keep_scores": ["loss"]}
    replaced = {"model": "a/captioner", "use": "replace_where_better"}
    with pytest.raises(UserError, match=r"recaption.use replaces .* Remedy: recaption.use: keep_both"):
        corpus(chosen, recaption=replaced)
    corpus({**chosen, "keep_scores": ["near"]}, recaption=replaced)
    corpus(chosen, recaption=replaced | {"use": "keep_both"})


def test_only_what_has_an_effect_decides_a_release() -> None:
    def inputs(select: dict[str, Any]) -> str:
        return release_inputs(corpus(select), Workspace("w"), [])

    used = {"scores": EVERY, "keep_scores": ["loss"]}
    assert inputs({}) == inputs({"scores": EVERY}) == inputs({"filter": {"top": [], "min_scores": {}}})
    different = [
        {},
        used,
        {"scores": EVERY | {"loss": LOSS | {"temperature": 0.5}}, "keep_scores": ["loss"]},
        {"filter": {"max_scores": {"sharpness": 1}}},
        {"filter": {"min_scores": {"sharpness": 1}}},
        {"filter": {"near_target": {"target": {"release": "r"}}}},
        {"density": {"keep": 0.5}},
    ]
    assert len({inputs(select) for select in different}) == len(different)
    assert inputs(used) == inputs(used | {"scores": EVERY | {"more": {"kind": "vas"}}})
    assert fingerprint(used) != fingerprint(different)
