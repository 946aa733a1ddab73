"""s-CLIPLoss against its formula, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmdata.select.scores.clip_loss import SurrogateClipLoss
from tests.support.pair_vectors import bank_of, pairs


def plain(picture: np.ndarray, text: np.ndarray, batch: list[tuple[np.ndarray, np.ndarray]], tau: float) -> float:
    """The formula of Wang et al. 2024 over a batch that holds the pair."""
    v, t = picture.astype(float), text.astype(float)
    over_texts = math.log(sum(math.exp(v @ other.astype(float) / tau) for _, other in batch))
    over_pictures = math.log(sum(math.exp(other.astype(float) @ t / tau) for other, _ in batch))
    return float(v @ t - tau / 2 * (over_texts + over_pictures))


@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
def test_the_score_is_the_formula_over_the_bank_and_the_pair_itself(tau: float) -> None:
    bank_pictures, bank_texts = pairs(30, seed=1)
    pictures, texts = pairs(20, seed=9)
    scores = SurrogateClipLoss(bank_of(bank_pictures, bank_texts), tau).score(pictures, texts)
    bank = list(zip(bank_pictures, bank_texts, strict=True))
    for row in range(20):
        batch = [*bank, (pictures[row], texts[row])]
        assert scores[row] == pytest.approx(plain(pictures[row], texts[row], batch, tau), abs=1e-6)
    assert scores.dtype == np.float32
    assert (scores <= 0).all()


def test_a_pair_of_the_bank_counts_once() -> None:
    pictures, texts = pairs(30, seed=1)
    scores = SurrogateClipLoss(bank_of(pictures, texts), 0.05).score(pictures, texts)
    batch = list(zip(pictures, texts, strict=True))
    expected = [plain(pictures[row], texts[row], batch, 0.05) for row in range(30)]
    assert scores == pytest.approx(expected, abs=1e-6)


def test_a_caption_that_fits_everything_scores_below_one_that_fits_its_picture_only() -> None:
    axes = np.eye(6, dtype=np.float16)
    everything = (np.ones(6) / math.sqrt(6)).astype(np.float16)
    bank = bank_of(np.stack([everything, everything, axes[4]]), axes[:3])
    score = SurrogateClipLoss(bank, 0.1)
    special, generic = np.array([axes[5], everything]), np.array([axes[5], everything])
    of_special, of_generic = score.score(special, generic)
    assert of_special > of_generic, "both cosines are 1"


def test_pairs_that_nothing_else_fits_still_have_an_order() -> None:
    axes = np.eye(4, dtype=np.float16)
    nearly = np.array([0.8, 0.6, 0.0, 0.0], np.float16)
    scores = SurrogateClipLoss(bank_of(axes[2:], axes[2:]), 0.02).score(
        np.stack([axes[0], axes[0]]), np.stack([axes[0], nearly])
    )
    assert scores == pytest.approx([-0.02 * 2 * math.exp(-50), -0.02 * 2 * math.exp(-40)], rel=2e-2)


def test_a_low_temperature_does_not_overflow() -> None:
    axes = np.eye(3, dtype=np.float16)
    score = SurrogateClipLoss(bank_of(axes[:2], axes[:2]), 1e-4)
    assert score.score(axes[:1], -axes[:1]) == pytest.approx([-1.5], abs=1e-3)
    assert np.isfinite(score.score(axes, -axes)).all()


def test_the_fingerprint_names_the_bank_and_the_temperature() -> None:
    bank = bank_of(*pairs(5, seed=1))
    fingerprints = {
        SurrogateClipLoss(bank, 0.01).fingerprint,
        SurrogateClipLoss(bank, 0.02).fingerprint,
        SurrogateClipLoss(bank_of(*pairs(5, seed=2)), 0.01).fingerprint,
    }
    assert len(fingerprints) == 3
