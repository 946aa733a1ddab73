"""The verdict comes from the interval, and has no favourite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from training.compare.verdict import CONFIDENCE, Difference, central_t, difference, seed_means, stratified_mean, tally

ONE = np.zeros(200, np.int64)


def hits(share: float, seeds: int = 3, queries: int = 200, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((seeds, queries)) < share).astype(np.float64)


def test_a_clear_gain_is_better_and_the_same_loss_is_worse() -> None:
    good, bad = hits(0.8, seed=1), hits(0.2, seed=2)
    there, back = difference(good, bad, ONE), difference(bad, good, ONE)
    assert (there.word, back.word) == ("better", "worse")
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_sides_of_one_distribution_do_not_differ() -> None:
    words = [difference(hits(0.3, seed=n), hits(0.3, seed=1000 + n), ONE).word for n in range(60)]
    assert words.count("no difference seen") >= 57


def test_one_seed_gives_no_verdict() -> None:
    found = difference(hits(0.9, seeds=1), hits(0.1, seeds=1), ONE)
    assert found.word == "no difference seen"
    assert math.isinf(found.high)


def test_the_interval_is_never_narrower_than_the_paired_test_of_the_seeds() -> None:
    ours, theirs = hits(0.5, seeds=5, seed=3), hits(0.45, seeds=5, seed=4)
    paired = ttest_rel(seed_means(ours, ONE), seed_means(theirs, ONE)).confidence_interval()
    found = difference(ours, theirs, ONE)
    assert found.high - found.low >= 0.999 * (paired.high - paired.low) or found.low <= paired.low


def test_what_the_seeds_share_does_not_widen_the_interval() -> None:
    luck = np.random.default_rng(0).random((5, 1)) * 0.2  # the same in both arms
    noise = np.random.default_rng(1).random((2, 5, 200)) * 0.1
    found = difference(luck + noise[0] + 0.05, luck + noise[1], ONE)
    assert found.word == "better"
    assert found.high - found.low < 0.05


def test_hits_of_other_seeds_or_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the same seeds"):
        difference(hits(0.5, seeds=3), hits(0.5, seeds=2), ONE)


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 3.7, 9, 120, 1e6])
def test_central_t_is_that_of_students_distribution(freedom: float) -> None:
    assert central_t(CONFIDENCE, freedom) == pytest.approx(t.ppf((1 + CONFIDENCE) / 2, freedom), rel=1e-4)


def test_without_any_spread_only_zero_is_no_difference() -> None:
    nothing, everything = np.zeros((3, 200)), np.ones((3, 200))
    assert difference(nothing, nothing, ONE).word == "no difference seen"
    assert difference(everything, nothing, ONE) == Difference(1.0, 1.0, 1.0)


def test_few_held_out_samples_are_doubted_though_the_seeds_agree() -> None:
    ours, theirs = np.tile([1.0, 0, 0, 0, 1, 0], (3, 1)), np.tile([0.0, 0, 0, 0, 1, 0], (3, 1))
    strata = np.zeros(6, np.int64)
    assert seed_means(ours, strata).std() == seed_means(theirs, strata).std() == 0
    assert difference(ours, theirs, strata).word == "no difference seen"


def test_a_stratified_mean_weighs_strata_alike_and_leaves_out_the_negative() -> None:
    values = np.array([1.0, 1, 1, 1, 0, 0])
    assert stratified_mean(values, np.array([0, 0, 0, 0, 1, 1])) == 0.5
    assert stratified_mean(values, np.array([0, 0, 0, 0, -1, -1])) == 1.0


def test_a_tally_names_every_word() -> None:
    said = tally(["worse", "worse", "no difference seen"])
    assert said == "better in 0, worse in 2, no difference seen in 1 of 3 metrics"
