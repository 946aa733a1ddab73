"""The classification report is that of torchmetrics, and of the plain formulae."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from training.metrics.classification import AVERAGED, classification_report


def test_each_class_has_its_precision_recall_and_f1() -> None:
    report = classification_report([0, 0, 0, 1, 2], [0, 0, 1, 1, 0], ["cat", "dog", "hen", "owl"])
    by_name = {row["class"]: row for row in report["classes"]}
    assert by_name["cat"] == {"class": "cat", "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    assert by_name["dog"] == {"class": "dog", "precision": 1 / 2, "recall": 1.0, "f1": 2 / 3, "support": 1}
    assert by_name["hen"] == {"class": "hen", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert by_name["owl"]["support"] == 0
    assert (report["accuracy"], report["samples"]) == (3 / 5, 5)
    assert report["macro"]["recall"] == pytest.approx((2 / 3 + 1 + 0) / 3), "of the classes that occur"
    assert report["weighted"]["recall"] == pytest.approx((3 * 2 / 3 + 1) / 5)


def test_it_agrees_with_torchmetrics() -> None:
    draw = np.random.default_rng(0)
    truth, guess = draw.integers(0, 7, 300), draw.integers(0, 7, 300)
    guess[:120] = truth[:120]
    report = classification_report(truth.tolist(), guess.tolist(), [str(at) for at in range(9)])
    tensors = torch.from_numpy(guess), torch.from_numpy(truth)
    for name, score in zip(AVERAGED, (multiclass_precision, multiclass_recall, multiclass_f1_score), strict=True):
        expected = score(*tensors, num_classes=9, average="none")
        torch.testing.assert_close(torch.tensor([row[name] for row in report["classes"]]), expected)
        for kind in ("macro", "weighted"):
            average = score(*tensors, num_classes=9, average=kind)
            assert report[kind][name] == pytest.approx(float(average), rel=1e-5), (kind, name)


@pytest.mark.parametrize(("truth", "guess"), [([], []), ([0], [0, 0])])
def test_no_sample_or_too_many_predictions_is_an_error(truth: list[int], guess: list[int]) -> None:
    with pytest.raises(ValueError, match="expected equally many, and at least 1"):
        classification_report(truth, guess, ["a"])
