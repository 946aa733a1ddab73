"""FID and Inception score of distributions whose values are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmdata.errors import UserError
from training.metrics.image_metrics import fid_and_inception_score


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_fid_of_equal_sets_is_zero() -> None:
    pictures = gaussian(300, 6, 0) @ gaussian(6, 6, 1)
    found = fid_and_inception_score(pictures, pictures.flip(0), nn.Identity(), batch_size=64)
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert (found["fid_samples"], found["fid_features"]) == (300, 6)
    assert set(found) == {"fid", "fid_samples", "fid_features"}


def test_fid_of_shifted_and_scaled_gaussians_is_the_known_one() -> None:
    """|shift|^2 for a shift; for X and aX with centred X, (1 - a)^2 times the trace of the covariance."""
    pictures = gaussian(500, 4, 2) @ gaussian(4, 4, 3)
    shift = torch.tensor([3.0, 0.0, -4.0, 0.5], dtype=torch.float64)
    shifted = fid_and_inception_score(pictures, (pictures + shift).split(130), nn.Identity())
    assert shifted["fid"] == pytest.approx(25.25, rel=1e-6)
    centred = pictures - pictures.mean(0)
    scaled = fid_and_inception_score(centred.split(7), centred * 3, nn.Identity())
    assert scaled["fid"] == pytest.approx(4 * torch.cov(centred.T).trace().item(), rel=1e-6)


class Colours(nn.Module):
    """A batch-normalised extractor: its features change with its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.norm(pictures)).mean((2, 3)).half()


def test_the_extractor_is_used_as_it_evaluates_and_left_as_it_was() -> None:
    extractor = Colours()
    before = extractor.norm.running_mean.clone()
    pictures = torch.rand(12, 3, 5, 5, generator=torch.Generator().manual_seed(4))
    found = [fid_and_inception_score(pictures, pictures * 0.5, extractor, batch_size=size)["fid"] for size in (3, 12)]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert torch.equal(extractor.norm.running_mean, before)
    assert (extractor.norm.training, extractor.frozen.training) == (True, False)


def test_inception_score_of_sure_and_varied_classes_is_their_number() -> None:
    logits = torch.eye(5).repeat(40, 1) * 1e4
    found = fid_and_inception_score(logits, logits, nn.Identity(), nn.Identity(), splits=1)
    assert (found["inception_score"], found["inception_score_std"]) == (pytest.approx(5), 0)
    one_class = logits[:1].expand(200, 5)
    assert fid_and_inception_score(logits, one_class, nn.Identity(), nn.Identity())["inception_score"] == pytest.approx(
        1
    )


def test_inception_score_repeats_and_leaves_the_random_state_alone() -> None:
    logits = gaussian(50, 4, 5)
    state = torch.random.get_rng_state()
    found = [fid_and_inception_score(logits, logits, nn.Identity(), nn.Identity(), seed=s) for s in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert found[0] == found[1] != found[2]
    assert found[0]["inception_score_std"] > 0


@pytest.mark.parametrize(("real", "generated"), [(0, 0), (1, 5), (5, 1), (5, 0)])
def test_too_few_pictures_are_refused(real: int, generated: int) -> None:
    pictures = gaussian(5, 3, 6)
    with pytest.raises(UserError, match=f"FID of {real} real and {generated} generated.*more samples"):
        fid_and_inception_score(pictures[:real], pictures[:generated], nn.Identity())


def test_features_that_are_no_finite_matrix_are_refused() -> None:
    with pytest.raises(UserError, match=r"Identity gave \(4, 3, 2, 2\)"):
        fid_and_inception_score(torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2), nn.Identity())
    with pytest.raises(UserError, match="finite"):
        fid_and_inception_score(torch.full((4, 3), math.nan), torch.rand(4, 3), nn.Identity())
