"""Repeat factors."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Oversample
from mmdata.select.oversample import cluster_threshold, repeat_factors, round_by_draw, signature_factors


@given(st.lists(st.integers(0, 1000), max_size=20), st.floats(0.0001, 1), st.integers(1, 10))
def test_repeat_factors_are_clipped_square_roots(counts: list[int], threshold: float, most: int) -> None:
    total = sum(counts)
    found = repeat_factors(np.array(counts), total, threshold, most)
    wanted = [min(max((threshold * total / c) ** 0.5, 1), most) if c else 1 for c in counts]
    np.testing.assert_allclose(found, wanted)


def test_a_rare_combination_of_modalities_is_repeated_like_a_rare_concept() -> None:
    signatures = pl.Series(["image+text"] * 960 + ["text"] * 36 + ["audio+text+video"] * 4)
    asked = Oversample(threshold=0.01, max_repeats=4)
    found = signature_factors(signatures, asked, None, 0.1)
    assert found == {"audio+text+video": pytest.approx(2.5**0.5), "image+text": 1.0, "text": 1.0}
    rarer = signature_factors(pl.concat([signatures] * 20 + [pl.Series(["audio"])]), asked, None, 0.1)
    assert rarer["audio"] == 4
    assert set(signature_factors(signatures, Oversample(signatures=False), None, 0.1).values()) == {1.0}
    assert set(signature_factors(signatures, Oversample(max_repeats=1), None, 0.1).values()) == {1.0}
    two = signature_factors(pl.Series(["text"] * 50 + ["image"] * 50), Oversample(threshold=1.0), None, 0.1)
    assert set(two.values()) == {1.0}


def test_the_factor_of_a_signature_sticks_within_the_tolerance() -> None:
    signatures = pl.Series(["image+text"] * 96 + ["audio+text"] * 4)
    asked = Oversample(threshold=0.05, max_repeats=4)
    wanted = signature_factors(signatures, asked, None, 0.1)["audio+text"]
    assert signature_factors(signatures, asked, {"audio+text": wanted * 1.05}, 0.1)["audio+text"] == wanted * 1.05
    assert signature_factors(signatures, asked, {"audio+text": wanted * 1.5}, 0.1)["audio+text"] == wanted


@pytest.mark.parametrize("factor", [1.0, 1.25, 2.0, 3.9])
def test_the_mean_of_the_repeats_is_the_factor(factor: float) -> None:
    draws = (np.arange(10_000) + 0.5) / 10_000
    repeats = round_by_draw(np.full(10_000, factor), draws)
    assert repeats.mean() == pytest.approx(factor, abs=1e-4)
    assert set(repeats) <= {int(factor), int(factor) + 1}


def test_equally_common_clusters_are_not_repeated_however_many() -> None:
    counts = np.full(1000, 50)
    assert (repeat_factors(counts, 50_000, cluster_threshold(0.01, 1000), 4) == 1).all()
    assert cluster_threshold(0.01, 20) == 0.01
