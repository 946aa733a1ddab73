"""Losses are sums over rows, and padding, duplicates and the own pair count as they should."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from training.config import PAIR_LOSS_NAMES
from training.model import losses
from training.model.losses import PAIR_LOSSES, PairLogits, chunked_cross_entropy, chunked_kl


def pairs(media: torch.Tensor, text: torch.Tensor, **changes: Any) -> PairLogits:
    """All pairs real, no caption twice, on one process."""
    count = len(media)
    values = {
        "media_BD": media,
        "text_BD": text,
        "all_media_ND": media,
        "all_text_ND": text,
        "own_B": torch.arange(count),
        "weight_B": torch.ones(count),
        "usable_N": torch.ones(count, dtype=torch.bool),
        "same_BN": torch.eye(count, dtype=torch.bool),
        "scale": torch.tensor([math.log(10.0)]),
        "bias": torch.tensor([-1.0]),
    }
    return PairLogits(**{**values, **changes})


def features(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return F.normalize(torch.randn(count, 8), dim=1), F.normalize(torch.randn(count, 8), dim=1)


def test_the_settings_name_the_losses_there_are() -> None:
    assert tuple(PAIR_LOSSES) == PAIR_LOSS_NAMES


def test_info_nce_is_the_mean_of_both_directions() -> None:
    media, text = features()
    logits, target = 10 * media @ text.T, torch.arange(4)
    expected = sum(F.cross_entropy(scores, target, reduction="sum") for scores in (logits, logits.T)) / 2
    torch.testing.assert_close(PAIR_LOSSES["infonce"](pairs(media, text), 0.0), expected)


def test_siglip_judges_every_pair_alone() -> None:
    media, text = features()
    sign = 2 * torch.eye(4) - 1
    expected = F.softplus(-sign * (10 * media @ text.T - 1)).sum()
    torch.testing.assert_close(PAIR_LOSSES["siglip"](pairs(media, text), 0.0), expected)


def test_triplet_asks_for_a_margin_to_the_hardest_negative() -> None:
    media = text = torch.eye(3)
    assert float(PAIR_LOSSES["triplet"](pairs(media, text), 0.5)) == 0
    assert float(PAIR_LOSSES["triplet"](pairs(media, text), 1.25)) == pytest.approx(3 * 0.25)


def test_bce_judges_the_pair_and_its_hardest_mismatch_in_each_direction() -> None:
    media, text = features()
    logits = 10 * media @ text.T - 1
    right, wrong = torch.ones(4), torch.zeros(4)
    hardest = logits.masked_fill(torch.eye(4).bool(), float("-inf"))
    judged = [(logits.diagonal(), right, 1.0), (hardest.amax(1), wrong, 0.5), (hardest.amax(0), wrong, 0.5)]
    expected = sum(w * F.binary_cross_entropy_with_logits(x, y, reduction="sum") for x, y, w in judged) / 2
    torch.testing.assert_close(PAIR_LOSSES["bce"](pairs(media, text), 0.0), expected)
    lonely = PAIR_LOSSES["bce"](pairs(media[:1], text[:1]), 0.0)
    torch.testing.assert_close(lonely, F.softplus(-logits[0, 0]) / 2)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_padding_and_equal_captions_are_no_negatives(name: str) -> None:
    media, text = features(5)
    usable = torch.tensor([True, True, True, False, False])
    padded = pairs(media, text, usable_N=usable, weight_B=usable.float())
    whole = PAIR_LOSSES[name](pairs(media[:3], text[:3]), 0.2)
    torch.testing.assert_close(PAIR_LOSSES[name](padded, 0.2), whole)
    twice = torch.eye(3, dtype=torch.bool)
    twice[0, 1] = twice[1, 0] = True
    assert float(PAIR_LOSSES[name](pairs(media[:3], text[:3], same_BN=twice), 2.0)) < float(
        PAIR_LOSSES[name](pairs(media[:3], text[:3]), 2.0)
    )


def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_POSITIONS", 3)
    torch.manual_seed(0)
    head, labels = torch.nn.Linear(6, 11), torch.randint(0, 11, (8,))
    results = []
    for chunked in (False, True):
        hidden = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = chunked_cross_entropy(hidden, labels, head, chunked)
        loss.backward()
        results.append((loss.detach(), hidden.grad))
    for whole, cut in zip(*results, strict=True):
        torch.testing.assert_close(cut, whole)


def test_kl_is_zero_between_equals_and_positive_otherwise() -> None:
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(6, 11).requires_grad_(False), torch.randn(8, 6)
    assert float(chunked_kl(hidden, hidden, head, head)) == pytest.approx(0, abs=1e-5)
    assert float(chunked_kl(hidden, hidden.flip(0), head, head)) > 0.1


def test_no_position_is_no_loss_but_a_gradient_for_all() -> None:
    head = torch.nn.Linear(6, 11)
    for loss in (
        chunked_cross_entropy(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long), head, True),
        chunked_kl(torch.zeros(0, 6), torch.zeros(0, 6), head, head),
    ):
        head.zero_grad()
        loss.backward()
        assert float(loss) == 0
        assert head.weight.grad is not None and not head.weight.grad.any()
