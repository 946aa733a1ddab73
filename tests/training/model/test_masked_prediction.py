"""Hidden cells of a picture are predicted, with the caption in view."""

from __future__ import annotations

import torch

from training.model.masked_prediction import MaskedPrediction


class Blind(torch.nn.Module):
    """An image tower whose map is the mean of each cell's pixels."""

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.adaptive_avg_pool2d(pixels, (4, 4))]


def test_masked_prediction_is_of_hidden_cells_and_reads_the_caption() -> None:
    torch.manual_seed(0)
    masked = MaskedPrediction(3, (4, 4), 8, 0.5)
    pixels, text, owner = torch.randn(6, 3, 32, 32), torch.randn(6, 8), torch.arange(6)
    torch.manual_seed(1)
    first = {name: value.detach() for name, value in masked(Blind(), pixels, text, owner).items()}
    assert 30 < float(first["masked_count"]) < 66, "about half of 96 cells"
    assert 0.8 < float(first["masked"] / first["masked_count"]) < 1.6, "of unit variance, before anything is learned"
    torch.manual_seed(1)
    assert not torch.allclose(masked(Blind(), pixels, text.flip(0), owner)["masked"], first["masked"])
    optimizer = torch.optim.Adam(masked.parameters(), 3e-3)
    for _ in range(60):
        torch.manual_seed(1)
        losses = masked(Blind(), pixels, text, owner)
        (losses["masked"] / losses["masked_count"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(losses["masked"].detach()) < 0.5 * float(first["masked"])


def test_a_cells_target_is_its_own_pixels() -> None:
    masked = MaskedPrediction(3, (2, 3), 8, 0.5)
    pixels = torch.zeros(1, 3, 32, 48)
    pixels[:, :, 16:, 32:] = torch.randn(3, 16, 16)
    targets = masked._targets(pixels)
    assert targets.shape == (1, 6, 192)
    assert torch.nonzero(targets[0].abs().sum(1))[:, 0].tolist() == [5], "row by row, as a map is flattened"
    torch.testing.assert_close(targets[0, 5].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets[0, 5].var(), torch.tensor(1.0), atol=1e-3, rtol=0)
    smooth = torch.nn.functional.avg_pool2d(pixels[:, :, 16:, 32:], 2).flatten()
    expected = (smooth - smooth.mean()) / smooth.std()
    torch.testing.assert_close(targets[0, 5], expected, atol=1e-3, rtol=1e-3)
