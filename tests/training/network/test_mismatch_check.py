"""The check: areas by their formula, intervals by bootstrap, and mismatches that are mismatches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.network.mismatch_check import Check, auc, check, mismatches


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def model(noise: float, n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and captions of one meaning, seen with noise."""
    meaning = np.random.default_rng(0).normal(size=(n, 8))
    rng = np.random.default_rng(seed)
    return unit(meaning + noise * rng.normal(size=meaning.shape)), unit(meaning)


def checked(scorer: float, network: float, n: int = 200) -> Check:
    first, second = model(scorer, n, 1), model(network, n, 2)
    return check(first, second, mismatches(first[1], [str(at) for at in range(n)], 0))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_auc_is_the_share_of_right_over_wrong_with_half_of_ties(right: list[int], wrong: list[int]) -> None:
    plain = np.mean([(r > w) + 0.5 * (r == w) for r in right for w in wrong])
    assert auc(np.array(right, float), np.array(wrong, float)) == pytest.approx(plain)


def test_a_better_network_beats_the_scorer() -> None:
    found = checked(scorer=3.0, network=1.0)
    assert found.beats_scorer
    assert found.gain["all"].value == pytest.approx(found.network["all"].value - found.scorer["all"].value)
    assert found.gain["all"].low < found.gain["all"].value < found.gain["all"].high


@pytest.mark.parametrize("network", [3.0, 6.0])
def test_an_equal_or_worse_network_does_not(network: float) -> None:
    assert not checked(scorer=3.0, network=network).beats_scorer


def test_few_pairs_prove_nothing() -> None:
    assert not checked(scorer=2.0, network=1.7, n=20).beats_scorer


def test_hard_mismatches_are_the_nearest_other_captions() -> None:
    text = unit(np.array([[1.0, 0], [1, 0], [1, 0.1], [0, 1]]))
    found = mismatches(text, ["a", "a", "b", "c"], 0)
    assert found.hard.tolist() == [2, 2, 0, 2]
    captions = np.array(["a", "a", "b", "c"])
    assert all(captions[found.shuffled] != captions)
    assert mismatches(text[:2], ["a", "a"], 0).hard.tolist() == [-1, -1], "there is no other caption"


def test_hard_mismatches_are_harder() -> None:
    found = checked(scorer=1.0, network=0.5)
    assert found.scorer["hard"].value < found.scorer["shuffled"].value


def test_the_verdict_is_plain_json() -> None:
    found = json.loads(json.dumps(checked(3.0, 1.0).to_json()))
    assert found["beats_scorer"] is True
    assert found["gain"]["all"].keys() == {"value", "low", "high"}
