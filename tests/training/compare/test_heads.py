"""Heads learn what pairs have in common, and a seed's training depends on nothing but its arm and seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.compare.heads import Frozen, Heads, Recipe, _loss, train_and_rank
from training.compare.verdict import difference

RECIPE = Recipe(steps=30, batch=32, width=16)


def frozen(n: int = 200, seed: int = 0) -> Frozen:
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(n, 6))
    views = [meaning @ rng.normal(size=(6, dim)) for dim in (12, 8)]
    image, text = (F.normalize(torch.from_numpy(view.astype(np.float32)), dim=-1) for view in views)
    return Frozen(image, text, torch.arange(n), torch.arange(n))


def test_heads_learn_to_find_the_partner() -> None:
    pool, held_out = np.arange(150), np.arange(150, 200)
    found = train_and_rank(frozen(), pool, held_out, [0, 1], RECIPE)
    untrained = train_and_rank(frozen(), pool, held_out, [0, 1], Recipe(steps=1, batch=32, lr=1e-9, width=16))
    assert found.shape == (2, 2, 50)
    assert (found <= 5).mean() > 2 * (untrained <= 5).mean()


def test_a_seed_is_trained_alike_alone_and_beside_others() -> None:
    pool, held_out = np.arange(150), np.arange(150, 200)
    together = train_and_rank(frozen(), pool, held_out, [0, 1, 2], RECIPE)
    alone = train_and_rank(frozen(), pool, held_out, [1], RECIPE)
    assert (together[1] == alone[0]).mean() > 0.97, "but for rounding"


def test_the_first_weights_of_a_seed_are_the_same_in_every_arm() -> None:
    first, second = Heads([3, 4], 0, 12, 16), Heads([4], 0, 12, 16)
    assert torch.equal(first.weight_SDW[1], second.weight_SDW[0])
    assert not torch.equal(first.weight_SDW[0], first.weight_SDW[1])
    assert not torch.equal(Heads([3], 1, 12, 16).weight_SDW, Heads([3], 0, 12, 16).weight_SDW)


def test_the_loss_is_infonce_of_each_seed() -> None:
    data, rows = frozen(), torch.arange(16).reshape(2, 8)
    towers = Heads([0, 1], 0, 12, 16), Heads([0, 1], 1, 8, 16)
    scale = torch.tensor([2.0, 3.0])
    expected = 0.0
    for seed in range(2):
        image = F.normalize(data.image[rows[seed]] @ towers[0].weight_SDW[seed], dim=-1)
        text = F.normalize(data.text[rows[seed]] @ towers[1].weight_SDW[seed], dim=-1)
        logits, own = scale[seed].exp() * image @ text.T, torch.arange(8)
        expected += (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)).item() / 2
    assert _loss(data, rows, towers, scale).item() == pytest.approx(expected, rel=1e-5)


def test_pairs_that_share_a_caption_are_no_negatives_of_one_another() -> None:
    plain = frozen()
    caption = plain.caption.clone()
    caption[1] = caption[0]
    shared = Frozen(plain.image, plain.text, plain.picture, caption)
    rows, towers = torch.tensor([[0, 1]]), (Heads([0], 0, 12, 16), Heads([0], 1, 8, 16))
    assert _loss(shared, rows, towers, torch.ones(1)).item() == pytest.approx(0.0, abs=1e-6), "nothing to tell apart"
    assert _loss(plain, rows, towers, torch.ones(1)).item() > 0.01


def test_a_batch_larger_than_the_arm_takes_its_pairs_again() -> None:
    found = train_and_rank(frozen(), np.arange(10), np.arange(150, 200), [0], RECIPE)
    assert found.shape == (1, 2, 50)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [Recipe(steps=100, warmup=10, lr=1.0).rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[-1] < 0.001
    assert math.isclose(rates[50], 0.5)


@pytest.mark.slow
def test_other_seeds_of_one_arm_are_told_apart_no_more_often_than_the_interval_allows() -> None:
    words = []
    for trial in range(60):
        data = frozen(260, seed=trial)
        noise = torch.randn(data.text.shape, generator=torch.Generator().manual_seed(trial))
        hard = Frozen(data.image, F.normalize(data.text + 0.5 * noise, dim=-1), data.picture, data.caption)
        pool, held_out = np.arange(160), np.arange(160, 260)
        ranks = [train_and_rank(hard, pool, held_out, seeds, RECIPE) for seeds in ([0, 1, 2], [3, 4, 5])]
        first, second = ((found <= 10).mean(1) for found in ranks)
        words.append(difference(first, second, np.zeros(100, np.int64)).word)
    assert sum(word != "no difference seen" for word in words) <= 6, "5% of 60 are 3; 7 or more come once in 30 times"
