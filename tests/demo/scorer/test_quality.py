"""The quality measures, on scorers of known quality."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.demo.scorer import quality


def test_auc_counts_ties_as_half():
    assert quality.auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(0.875)
    assert quality.auc(np.zeros(3), np.zeros(5)) == 0.5
    assert np.isnan(quality.auc(np.zeros(0), np.zeros(5)))


def test_a_perfect_scorer_keeps_only_clean_pairs_and_a_blind_one_gains_nothing():
    rows = np.eye(100, dtype=np.float32)
    captions = [str(i) for i in range(100)]
    perfect = quality.measure(rows, rows, captions, shuffled=0.3, kept=0.7)
    assert perfect.auc == 1.0
    assert perfect.clean_after > 0.99
    blind = quality.measure(np.ones((100, 4), np.float32), np.ones((100, 4), np.float32), captions)
    assert blind.auc == 0.5
    assert abs(blind.clean_after - blind.clean_before) < 0.05
