"""NormSim against its formula, written out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from mmdata.select.scores.norm_sim import NormSim
from mmdata.select.scores.targets import TargetVectors
from tests.support.pair_vectors import unit_vectors


@pytest.mark.parametrize("p", [2, "inf"])
def test_the_score_is_the_norm_of_the_cosines_with_the_target_set(p: Literal[2, "inf"]) -> None:
    target, pictures = unit_vectors(50, seed=1), unit_vectors(300, seed=2)
    scores = NormSim(TargetVectors(target), p).score(pictures, None)
    order = np.inf if p == "inf" else p
    for row, picture in enumerate(pictures):
        cosines = [float(picture.astype(float) @ vector.astype(float)) for vector in target]
        assert scores[row] == pytest.approx(np.linalg.norm(cosines, order), abs=1e-6)
    assert scores.dtype == np.float32


def test_a_large_target_set_is_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    target, pictures = unit_vectors(50, seed=1), unit_vectors(10, seed=2)
    whole = NormSim(TargetVectors(target), "inf").score(pictures, None)
    monkeypatch.setattr("mmdata.select.scores.norm_sim._TARGETS_AT_ONCE", 7)
    assert (NormSim(TargetVectors(target), "inf").score(pictures, None) == whole).all()


def test_the_fingerprint_names_the_norm_and_the_vectors() -> None:
    one, other = TargetVectors(unit_vectors(3, seed=1)), TargetVectors(unit_vectors(3, seed=2))
    assert len({NormSim(one, 2).fingerprint, NormSim(one, "inf").fingerprint, NormSim(other, 2).fingerprint}) == 3
