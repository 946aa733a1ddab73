"""VAS against its formula, written out."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.select.scores.variance_alignment import VarianceAlignment
from tests.support.pair_vectors import pairs


def test_the_score_is_the_quadratic_form_of_the_second_moment() -> None:
    target, _ = pairs(40, seed=1)
    pictures, _ = pairs(25, seed=5)
    scores = VarianceAlignment(target, None, "target").score(pictures, None)
    moment = np.mean([np.outer(t.astype(float), t.astype(float)) for t in target], axis=0)
    expected = [v.astype(float) @ moment @ v.astype(float) for v in pictures]
    assert scores == pytest.approx(expected, abs=1e-6)
    assert scores.dtype == np.float32


def test_with_both_towers_it_is_the_cross_moment_between_picture_and_caption() -> None:
    target, target_texts = pairs(40, seed=1)
    pictures, texts = pairs(25, seed=5)
    score = VarianceAlignment(target, target_texts, "target")
    moment = np.mean(
        [np.outer(v.astype(float), t.astype(float)) for v, t in zip(target, target_texts, strict=True)], axis=0
    )
    expected = [v.astype(float) @ moment @ t.astype(float) for v, t in zip(pictures, texts, strict=True)]
    assert score.reads_texts
    assert score.score(pictures, texts) == pytest.approx(expected, abs=1e-6)
    assert score.fingerprint != VarianceAlignment(target, None, "target").fingerprint
