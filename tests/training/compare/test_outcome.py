"""What a comparison says: differences, verdicts, notes, and all of it as JSON."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from training.compare.experiment import Experiment
from training.compare.outcome import ArmFacts, Outcome, outcome
from training.compare.recall import metrics
from training.compare.verdict import difference


def made(seeds: int = 3, knows_truth: bool = True, second: str = "<b>better</b>") -> Outcome:
    """Two arms; the second one ranks most partners first."""
    rng = np.random.default_rng(0)
    ranks = {"raw": rng.integers(1, 100, (seeds, 2, 50)), second: rng.integers(1, 13, (seeds, 2, 50))}
    arms = [ArmFacts(name, f"spec of {name}", 100, 80, 70, 0.5 if knows_truth else None) for name in ranks]
    concepts = ["c1", "c2"] * 25
    counts = Counter(concepts)
    facts = {"held_out": 50, "left_out": 7, "held_out_from": None, "knows_truth": knows_truth}
    experiment = Experiment(list(ranks), seeds=seeds)
    return outcome(experiment, arms, metrics(concepts, counts), ranks, scorer="a scorer", seconds=1.25, **facts)


def test_each_two_arms_are_compared_second_against_first() -> None:
    found = made()
    pair = ("raw", "<b>better</b>")
    assert found.pairs() == [pair]
    gain = found.headline().differences[pair]
    assert gain.word == "better"
    assert gain.mean == pytest.approx(np.mean(found.headline().seeds[pair[1]]) - np.mean(found.headline().seeds["raw"]))
    assert found.verdict(pair).startswith("<b>better</b> against raw: better in both ways, recall@10 (+0.")


def test_the_difference_is_that_of_the_verdict_module() -> None:
    found = made()
    metric = next(one for one in found.measured if one.name == "image to text, recall@10")
    rng = np.random.default_rng(0)
    raw, other = rng.integers(1, 100, (3, 2, 50)), rng.integers(1, 13, (3, 2, 50))
    expected = difference((other[:, 0] <= 10) * 1.0, (raw[:, 0] <= 10) * 1.0, np.zeros(50, np.int64))
    assert metric.differences["raw", "<b>better</b>"] == expected


def test_json_holds_every_seed_and_every_interval() -> None:
    found = json.loads(json.dumps(made().to_json(), allow_nan=False))
    assert found["format"] == 1
    assert {"arms", "held_out", "metrics", "verdicts", "notes", "headline", "confidence", "seeds"} < found.keys()
    headline = next(metric for metric in found["metrics"] if metric["name"] == found["headline"])
    assert len(headline["arms"]["raw"]["seeds"]) == 3
    assert headline["differences"][0].keys() == {"arm", "against", "mean", "low", "high", "word"}
    assert found["verdicts"][0]["word"] == "better"
    assert sum(found["verdicts"][0]["words"].values()) == len(found["metrics"])
    assert found["held_out"] == {
        "pairs": 50,
        "from": None,
        "too_like_left_out": 7,
        "captions_known_to_be_true": True,
    }


def test_one_seed_has_no_interval_and_says_so() -> None:
    found = made(seeds=1)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["metrics"][0]["differences"][0]["low"] is None
    assert json.loads(text)["metrics"][0]["arms"]["raw"]["std"] is None
    assert any("--seeds" in note for note in found.notes())


def test_false_held_out_captions_are_spoken_of_where_the_truth_is_not_known() -> None:
    assert any("alike" in note for note in made(knows_truth=False).notes())
    assert not any("alike" in note for note in made().notes())
