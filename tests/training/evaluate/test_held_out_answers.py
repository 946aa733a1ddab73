"""Captions of held-out pictures name their concepts or not, and the same with other pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_run import alone, release_at, settings
from tests.support.trained import checkpoint_of, config_of
from training.config import Data
from training.data.batch_readers import RowReader, Share
from training.data.text_codec import IGNORED, Encoded
from training.data.training_data import open_training_data
from training.evaluate import held_out_answers
from training.evaluate.answer import ANSWER_TOKENS, prompt_batch
from training.evaluate.held_out_answers import concept_metrics, concepts_of, generate_answers
from training.stages.stage_model import load_model
from training.stages.stage_reader import make_reader


def test_shares_are_of_the_captions_whose_concept_has_a_name() -> None:
    def answer(expected: str, generated: str, other: str | None, concept: str | None) -> dict[str, Any]:
        more = {} if other is None else {"with_other_picture": other}
        return {"expected": expected, "generated": generated, "concept": concept, **more}

    answers = [
        answer("the animal cat", "the animal dog", "the food pie", "animal"),
        answer("pie (food)", "a face", "pizza (food)", "food"),
        answer("flag of Chad", "the FLAG of Mali", "the face", "flag"),
        answer("flag of Chad", "the flag", None, "flag"),  # no other picture to compare with
        answer("a cat", "cluster 7", "cluster 7", "7"),  # a cluster has no name
        answer("a cat", "a cat", "a cat", None),
    ]
    expected = {"concept_named": 2 / 3, "concept_named_with_other_pictures": 1 / 3, "concept_captions": 3.0}
    assert concept_metrics(answers) == pytest.approx(expected)
    assert concept_metrics(answers[4:]) == {}


@pytest.mark.parametrize("architecture", ["single_tower", "cross_attention"])
def test_answers_that_are_generated_together_are_those_of_one_at_a_time(tmp_path: Path, architecture: str) -> None:
    release = release_at(tmp_path / "release", samples=60)
    place = checkpoint_of(tmp_path, "joint", config_of(architecture), release)
    built, config = load_model(place)
    opened = open_training_data([release], Data(), tmp_path / "data")
    reader = make_reader(built, opened, config, "train", 8, Share())
    assert isinstance(reader, RowReader)
    answers = generate_answers(built, reader, opened, 12, alone().device)
    model, codec = built.generative()
    assert len({answer["generated"] for answer in answers}) > 1
    for at, answer in enumerate(answers):
        example, _ = reader.example(int(reader.order.at(0, [at])[0]))  # type: ignore[arg-type]
        own = Encoded(reader.encode(example).ids[:1], [IGNORED], [0])
        ids = model.generate(prompt_batch(built, example, own), ANSWER_TOKENS, codec.ends)[0]
        assert answer["uid"] == example.uid
        assert answer["generated"] == codec.decode(ids)
    uids = [answer["uid"] for answer in answers]
    assert concepts_of(opened.releases[0][0], uids).keys() <= set(uids)
    next_generated = [*answers[1:], answers[0]]
    assert [answer["with_other_picture"] for answer in answers] == [answer["generated"] for answer in next_generated]


def test_questions_are_not_asked_of_other_pictures(tmp_path: Path) -> None:
    release = release_at(tmp_path / "release")
    built, config = load_model(checkpoint_of(tmp_path, "instruct", settings(), release))
    opened = open_training_data([release], Data(), tmp_path / "data")
    reader = make_reader(built, opened, config, "train", 8, Share())
    assert isinstance(reader, RowReader)
    answers = generate_answers(built, reader, opened, 3, alone().device)
    assert all("with_other_picture" not in answer for answer in answers)


def test_answers_are_generated_in_runs_of_few_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = release_at(tmp_path / "release", samples=40)
    built, config = load_model(checkpoint_of(tmp_path, "joint", settings(), release))
    opened = open_training_data([release], Data(), tmp_path / "data")
    reader = make_reader(built, opened, config, "train", 8, Share())
    assert isinstance(reader, RowReader)
    whole = generate_answers(built, reader, opened, 7, alone().device)
    monkeypatch.setattr(held_out_answers, "PROMPTS_AT_ONCE", 3)
    kept: list[int] = []
    generated = held_out_answers._generated
    monkeypatch.setattr(
        held_out_answers, "_generated", lambda b, prompts, d: (kept.append(len(prompts)), generated(b, prompts, d))[1]
    )
    parts = generate_answers(built, reader, opened, 7, alone().device)
    assert kept == [3, 3, 2, 2, 2, 2], "own and others' pictures"
    for name in ("uid", "expected", "generated", "concept"):
        assert [answer.get(name) for answer in parts] == [answer.get(name) for answer in whole]
    assert all("with_other_picture" in answer for answer in parts), "no run has one sample alone"
    assert generate_answers(built, reader, opened, 0, alone().device) == []
