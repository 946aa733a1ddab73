"""The classification report: precision, recall, F1 and support of each class, and their averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

AVERAGED = ("precision", "recall", "f1")


def classification_report(truth: Sequence[int], predicted: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Precision, recall and F1 of each class, as scikit-learn's report defines them; 0 where they are 0 / 0.

    It is counted here because torchmetrics counts a table of classes x classes, and concepts can be 100,000.

    Args: truth, predicted: of each sample, an index of `classes`.

    Returns:
        `accuracy` and `samples`; `classes`, a list of {class, precision, recall, f1, support}; `macro`, the mean over
        the classes that occur in the truth or the predictions; `weighted`, the mean weighted by support.

    Raises ValueError: there is no sample, or there are not as many predictions.
    """
    if not truth or len(truth) != len(predicted):
        raise ValueError(
            f"{len(predicted)} predictions for {len(truth)} samples: expected equally many, and at least 1"
        )
    true, guess = np.asarray(truth), np.asarray(predicted)
    support, guessed = (np.bincount(values, minlength=len(classes)) for values in (true, guess))
    right = np.bincount(true[true == guess], minlength=len(classes))
    scores = {
        "precision": right / np.maximum(guessed, 1),
        "recall": right / np.maximum(support, 1),
        "f1": 2 * right / np.maximum(guessed + support, 1),
    }
    occurs = guessed + support > 0
    return {
        "accuracy": float((true == guess).mean()),
        "samples": len(truth),
        "macro": {name: float(scores[name][occurs].mean()) for name in AVERAGED},
        "weighted": {name: float(np.average(scores[name], weights=support)) for name in AVERAGED},
        "classes": [
            {"class": name, **{key: float(scores[key][at]) for key in AVERAGED}, "support": int(support[at])}
            for at, name in enumerate(classes)
        ],
    }
