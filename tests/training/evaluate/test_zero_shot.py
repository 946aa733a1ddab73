"""Held-out pictures are classified by the names of their classes, and the report says how well."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmdata.errors import UserError
from mmdata.inspect.training_runs import class_rows
from training.data.examples import Pairs
from training.data.sample_index import SAMPLE
from training.evaluate import zero_shot
from training.evaluate.zero_shot import ClassQuestion, classify_pictures, report_lines, report_metrics

COLOURS = ("blue", "green", "red")


class NamesAreVectors:
    """A dual encoder whose texts are one-hot vectors of the colour that they name."""

    logit_scale = torch.zeros(1)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[name in text for name in COLOURS] for text in texts]).long()

    def embed_texts(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.float()


class Colours(Pairs):
    """Samples whose source has a column `colour`; sample 4 has none, and sample 5 is only sound."""

    def __init__(self) -> None:
        self.truth = ["red", "red", "blue", "green", None, "red"]

    def row(self, index: int) -> Any:
        return np.array([(0, index, *[0] * 7)], SAMPLE)[0]

    def own_columns(self, index: int) -> dict[str, Any]:
        return {"colour": self.truth[index]}


def classified(monkeypatch: pytest.MonkeyPatch, question: ClassQuestion) -> dict[str, Any]:
    source = Colours()
    uids = [f"{at:032x}" for at in range(6)]
    order = SimpleNamespace(pick=lambda _, positions: SimpleNamespace(samples=positions))
    reader = cast(Any, SimpleNamespace(source=source, order=order))
    seen = F.one_hot(torch.tensor([2, 0, 0, 1, 1]), 3).float()  # sample 1 looks blue, and the last has no picture
    monkeypatch.setattr(zero_shot, "concepts_of", lambda *_: {uids[0]: "en:red", uids[2]: "en:blue"})
    model = cast(Any, NamesAreVectors())
    return classify_pictures(model, question, reader, cast(Any, None), 6, uids[:5], seen)


def test_a_column_of_the_source_says_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    report = classified(monkeypatch, ClassQuestion("colour"))
    assert (report["samples"], report["left_out"], report["accuracy"]) == (4, 1, 3 / 4)
    rows = {row["class"]: (row["precision"], row["recall"], row["support"]) for row in report["classes"]}
    assert rows == {"blue": (0.5, 1.0, 1), "green": (1.0, 1.0, 1), "red": (1.0, 0.5, 2)}
    assert report_metrics(report)["zero_shot/macro_recall"] == pytest.approx(2.5 / 3)
    assert class_rows(report)[-1] == ("weighted average", "0.875", "0.750", "0.750", "4")
    assert "| red | 1.000 | 0.500 | 0.667 | 2 |" in report_lines(report)


def test_the_names_may_be_fewer_and_the_column_may_be_the_concept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("red\n\nblue\nred\n")
    few = classified(monkeypatch, ClassQuestion("colour", tmp_path / "names.txt"))
    assert [row["class"] for row in few["classes"]] == ["red", "blue"]
    assert (few["samples"], few["left_out"]) == (3, 2)
    concepts = classified(monkeypatch, ClassQuestion("concept", prompt="all {}"))
    assert (concepts["samples"], concepts["accuracy"], concepts["prompt"]) == (2, 1.0, "all {}")
    json.dumps(concepts)


def test_a_question_without_classes_is_a_user_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "others.txt").write_text("violet\n")
    for question, says in (
        (ClassQuestion("colour", prompt="a photo"), "has no place for a class. Remedy: such as 'a photo of {}'"),
        (ClassQuestion("shape"), "column shape: no held-out picture has a class there. Remedy: `concept`"),
        (ClassQuestion("colour", tmp_path / "others.txt"), r"class there that .*others.txt names"),
        (ClassQuestion("colour", tmp_path / "empty.txt"), "has no class names. Remedy: a class name a line"),
        (ClassQuestion("colour", tmp_path / "missing.txt"), "cannot be read"),
    ):
        with pytest.raises(UserError, match=says):
            classified(monkeypatch, question)
