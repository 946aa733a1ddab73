"""The whole experiment on pairs whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from mmdata.errors import UserError
from tests.support.compared import Compared
from training.compare import experiment as module
from training.compare.experiment import Experiment, compare
from training.compare.heads import Recipe
from training.compare.outcome import Outcome

RECIPE = Recipe(steps=60, batch=64)


def setting(compared: Compared, *arms: str, **changes: object) -> Experiment:
    base = Experiment(arms, seeds=3, recipe=RECIPE, held_out_share=0.3, truth=compared.truth, group_column="group")
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def outcome(compared: Compared, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("clean")
    clean = compared.table(folder / "clean.parquet", compared.is_true)
    return compare(compared.corpus, setting(compared, "raw", str(clean)), UPath(folder / "cache"))


def test_clean_captions_make_the_better_model_by_an_interval_that_leaves_zero_out(outcome: Outcome) -> None:
    gain = outcome.headline().differences["raw", "clean"]
    assert gain.word == "better"
    assert gain.low > 0
    assert [arm.true_share for arm in outcome.arms] == [pytest.approx(0.4, abs=0.1), 1.0]


def test_no_pair_of_a_held_out_group_is_trained_on(outcome: Outcome, compared: Compared) -> None:
    raw = outcome.arms[0]
    assert raw.distinct == len(compared.uids)
    assert raw.trained_on == raw.trained_on_distinct == raw.distinct - outcome.held_out - outcome.left_out
    assert outcome.left_out > outcome.held_out / 2, "the other one of each group, and false captions"


def test_equal_arms_are_not_told_apart(compared: Compared, cache: Path) -> None:
    first = np.zeros(len(compared.uids), bool)
    for alike in (compared.is_true, ~compared.is_true):  # as many true captions in either half
        first[np.flatnonzero(alike)[::2]] = True
    arms = [str(compared.table(cache.parent / f"{name}.parquet", half)) for name, half in (("a", first), ("b", ~first))]
    found = compare(compared.corpus, setting(compared, *arms), UPath(cache))
    assert found.headline().differences["a", "b"].word == "no difference seen"
    same = compare(compared.corpus, setting(compared, "x:raw", "y:raw"), UPath(cache))
    assert {word for pair in same.pairs() for word in same.words(pair)} == {"no difference seen"}


def test_the_order_of_arms_changes_nothing_but_the_sign(compared: Compared, outcome: Outcome, cache: Path) -> None:
    clean = compared.table(cache.parent / "clean.parquet", compared.is_true)
    turned = compare(compared.corpus, setting(compared, str(clean), "raw"), UPath(cache))
    for metric, other in zip(outcome.measured, turned.measured, strict=True):
        assert metric.seeds["raw"] == other.seeds["raw"]
        there, back = metric.differences["raw", "clean"], other.differences["clean", "raw"]
        assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_a_table_in_another_order_is_the_same_arm(compared: Compared, cache: Path) -> None:
    rows = [compared.uids[at] for at in np.flatnonzero(compared.is_true)]
    (cache.parent / "there.txt").write_text("\n".join(rows))
    (cache.parent / "back.txt").write_text("\n".join(reversed(rows)))
    found = compare(
        compared.corpus,
        setting(compared, str(cache.parent / "there.txt"), str(cache.parent / "back.txt")),
        UPath(cache),
    )
    assert found.headline().seeds["there"] == found.headline().seeds["back"]


def test_what_was_trained_before_is_not_trained_again(
    compared: Compared, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compare(compared.corpus, setting(compared, "raw", "all:raw"), UPath(cache))

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train_and_rank", never)
    again = compare(compared.corpus, setting(compared, "raw", "all:raw"), UPath(cache))
    assert again.headline().seeds == before.headline().seeds
    with pytest.raises(AssertionError, match="trained again"):
        compare(compared.corpus, setting(compared, "raw", "all:raw", seeds=2), UPath(cache))


def test_a_given_table_is_what_is_measured_on(compared: Compared, cache: Path) -> None:
    chosen = compared.is_true & (np.arange(len(compared.uids)) < 120)
    held_out = compared.table(cache.parent / "held.parquet", chosen)
    found = compare(compared.corpus, setting(compared, "raw", "all:raw", held_out=str(held_out)), UPath(cache))
    assert found.held_out <= chosen.sum()
    assert found.held_out_from == str(held_out)
    assert found.arms[0].trained_on == len(compared.uids) - found.held_out - found.left_out


def test_an_arm_is_cut_to_the_pairs_of_the_lowest_hashes(compared: Compared, cache: Path) -> None:
    found = compare(compared.corpus, setting(compared, "raw", "all:raw", max_pairs=200), UPath(cache))
    assert found.arms[0].distinct <= 200
    assert found.headline().seeds["raw"] == found.headline().seeds["all"]


def test_too_few_held_out_pairs_are_an_error(compared: Compared, cache: Path) -> None:
    with pytest.raises(UserError, match="--held-out-share"):
        compare(compared.corpus, setting(compared, "raw", "all:raw", held_out_share=0.001), UPath(cache))


def test_one_arm_is_no_comparison(compared: Compared, cache: Path) -> None:
    with pytest.raises(UserError, match="two arms"):
        compare(compared.corpus, setting(compared, "raw"), UPath(cache))
