"""Cross-modal masked prediction: hidden patches of a picture, predicted with its caption in view."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8  # pixels of a predicted patch's side, after averaging down


class MaskedPrediction(nn.Module):
    """Predicts the pixels of hidden patches (MAE, He et al. 2022) from what is seen and from the caption's embedding.

    Works with any image tower: patches are hidden in the pixels, and its deepest feature map is read.

    Args:
        width: channels of that map.
        grid: its height and width; a patch is one cell.
        text_dim: of the caption's embedding.
        ratio: share of cells hidden.
    """

    def __init__(self, width: int, grid: tuple[int, int], text_dim: int, ratio: float, dim: int = 128) -> None:
        super().__init__()
        self.grid, self.ratio = grid, ratio
        self.tokens, self.caption = nn.Linear(width, dim), nn.Linear(text_dim, dim)
        self.position = nn.Parameter(torch.randn(grid[0] * grid[1], dim) * 0.02)
        block = nn.TransformerEncoderLayer(dim, 4, 4 * dim, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.pixels = nn.Linear(dim, 3 * CELL * CELL)

    def forward(self, vision: Any, pixels_MCHW: Tensor, text_BD: Tensor, owner_M: Tensor) -> dict[str, Tensor]:
        """Sums over hidden cells: `masked`, mean squared error of a cell's normalised pixels; `masked_count`."""
        rows, columns = self.grid
        hidden_MN = torch.rand(len(pixels_MCHW), rows * columns, device=pixels_MCHW.device) < self.ratio
        cover = hidden_MN.float().unflatten(1, self.grid)[:, None]
        cover = F.interpolate(cover, size=pixels_MCHW.shape[-2:], mode="nearest")
        seen_MDhw = vision.maps(pixels_MCHW * (1 - cover))[-1]
        tokens_MND = self.tokens(seen_MDhw.flatten(2).transpose(1, 2)) + self.position
        real = float(len(owner_M) > 0)  # what stands in for the picture of a rank without any counts zero times
        owner_M = owner_M if len(owner_M) else torch.zeros(len(pixels_MCHW), dtype=torch.long, device=text_BD.device)
        caption_M1D = self.caption(text_BD[owner_M])[:, None]
        found_MNP = self.pixels(self.blocks(torch.cat([caption_M1D, tokens_MND], 1))[:, 1:])
        error_MN = (found_MNP.float() - self._targets(pixels_MCHW)).square().mean(-1)
        return {"masked": (error_MN * hidden_MN).sum() * real, "masked_count": hidden_MN.sum().float() * real}

    def _targets(self, pixels_MCHW: Tensor) -> Tensor:
        """Each cell's pixels M,N,P, averaged down to CELL x CELL, of zero mean and unit variance."""
        rows, columns = self.grid
        small = F.interpolate(pixels_MCHW, size=(rows * CELL, columns * CELL), mode="area")
        cells = F.unfold(small, CELL, stride=CELL).transpose(1, 2)
        return (cells - cells.mean(-1, keepdim=True)) / (cells.var(-1, keepdim=True) + 1e-6).sqrt()
