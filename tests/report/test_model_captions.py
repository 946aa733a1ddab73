"""Captions of trained models, read from their evaluations: of this release, with pictures, bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from mmdata.report.model_captions import (
    MAX_IN_REPORT,
    MAX_MODELS,
    ModelCaptions,
    caption_facts,
    captioned_picture,
    names_concept,
    read_captions,
)

WORDS = st.lists(st.sampled_from(["a", "drawing", "of", "Animal", "animals", "food", "sea-food", "C++"]), max_size=6)


def answer(uid: str, **given: Any) -> dict[str, Any]:
    return {"uid": uid, "prompt": "", "expected": "the animal cat", "generated": "an animal", **given}


def evaluated(models: Path, release_id: str, answers: list[dict[str, Any]]) -> Path:
    (models / "joint").mkdir(parents=True)
    found = {"release_id": release_id, "step": 7, "metrics": {"loss": 1.25}, "answers": answers}
    (models / "joint" / "metrics.json").write_text(json.dumps(found))
    return models


def of(count: int) -> ModelCaptions:
    return ModelCaptions("run", 7, [], [answer(f"u{n}") for n in range(count)], None)


@given(words=WORDS, concept=st.sampled_from(["animal", "food", "c++", "drawing of"]))
def test_a_name_is_found_as_whole_words_in_any_case(words: list[str], concept: str) -> None:
    caption = " ".join(words)
    spaced = f" {caption.casefold().replace('-', ' ')} "
    assert names_concept(caption, concept) == (f" {concept} " in spaced)


def test_a_caption_is_marked_where_the_samples_own_caption_names_the_concept() -> None:
    named = [answer("u", concept="animal"), answer("u", concept="animal", generated="a face")]
    assert [captioned_picture(entry, None).names_concept for entry in named] == [True, False]
    for entry in (answer("u"), answer("u", concept=None), answer("u", concept="food", generated="food")):
        assert captioned_picture(entry, None).names_concept is None


def test_only_readable_evaluations_of_the_release_are_read(tmp_path: Path) -> None:
    models = [
        evaluated(tmp_path / "b", "r1", [answer("u")]),
        evaluated(tmp_path / "a", "r1", [answer("v")]),
        evaluated(tmp_path / "old", "r0", [answer("u")]),
        evaluated(tmp_path / "silent", "r1", []),
        evaluated(tmp_path / "torn", "r1", [answer("u")]),
        tmp_path / "nowhere",
    ]
    (tmp_path / "torn" / "joint" / "metrics.json").write_text("{")
    (tmp_path / "b" / "joint" / "captions.html").write_text("page")
    a, b = read_captions([*models, tmp_path / "b" / ".." / "a"], "r1")
    assert (a.name, a.step, a.facts, a.uids, a.page) == ("a", 7, [("loss", "1.250")], ["v"], None)
    assert b.page == tmp_path / "b" / "joint" / "captions.html"
    many = [evaluated(tmp_path / "many" / str(n), "r1", [answer("u")]) for n in range(MAX_MODELS + 1)]
    assert len(read_captions(many, "r1")) == MAX_MODELS


def test_samples_without_a_picture_are_left_out_and_the_rest_is_bounded() -> None:
    model = of(100)
    images = {uid: None if n % 3 == 0 else f"data:{uid}" for n, uid in enumerate(model.uids)}
    shown = model.pictures(images)
    assert [picture.uid for picture in shown] == [uid for uid in model.uids if images[uid]][:MAX_IN_REPORT]
    assert len(shown) == MAX_IN_REPORT
    assert model.pictures({}) == []


def test_the_link_leads_from_the_report_to_the_page(tmp_path: Path) -> None:
    page = tmp_path / "training" / "r1" / "my run #1" / "joint" / "captions.html"
    model = ModelCaptions("my run #1", 7, [], [], page)
    folder = tmp_path / "releases" / "r1"
    assert model.link(UPath(folder)) == "../../training/r1/my%20run%20%231/joint/captions.html"
    assert model.link(UPath("memory://releases/r1")) is None
    assert of(1).link(UPath(folder)) is None


def test_facts_are_the_shares_and_the_losses_that_were_measured() -> None:
    assert caption_facts({"loss": 1.0, "perplexity": 9.0}) == [("loss", "1.000")]
    facts = caption_facts({"concept_named": 0.57, "concept_named_with_other_pictures": 0.26})
    assert [value for _, value in facts] == ["57%", "26%"]
