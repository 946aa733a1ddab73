"""Cross-modal masked prediction: hidden patches of a picture are predicted with the help of its caption."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL_PIXELS = 8  # side of a predicted patch, after the picture is scaled down


class MaskedPrediction(nn.Module):
    """Predicts the pixels of hidden patches (MAE, He et al. 2022) from the visible ones and the caption's embedding.

    It works with any image tower, because it hides patches in the pixels and reads the deepest feature map.

    Args:
        width: channels of that map.
        grid: height and width of that map; a patch is one cell of it.
        text_dim: width of the caption's embedding.
        ratio: share of the cells that are hidden.
    """

    def __init__(self, width: int, grid: tuple[int, int], text_dim: int, ratio: float, dim: int = 128) -> None:
        super().__init__()
        self.grid, self.ratio = grid, ratio
        self.tokens, self.caption = nn.Linear(width, dim), nn.Linear(text_dim, dim)
        self.position = nn.Parameter(torch.randn(grid[0] * grid[1], dim) * 0.02)
        block = nn.TransformerEncoderLayer(dim, 4, 4 * dim, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.pixels = nn.Linear(dim, 3 * CELL_PIXELS * CELL_PIXELS)

    def forward(self, vision: Any, pixels_MCHW: Tensor, text_BD: Tensor, owner_M: Tensor) -> dict[str, Tensor]:
        """Sums over hidden cells: `masked`, the mean squared error of a cell's normalised pixels, and `masked_count`.

        Args: owner_M: int64; the caption of each picture. Empty if the pictures stand in for a rank without any.
        """
        rows, columns = self.grid
        hidden_MN = torch.rand(len(pixels_MCHW), rows * columns, device=pixels_MCHW.device) < self.ratio
        cover = hidden_MN.float().unflatten(1, self.grid)[:, None]
        cover = F.interpolate(cover, size=pixels_MCHW.shape[-2:], mode="nearest")
        seen_MDhw = vision.maps(pixels_MCHW * (1 - cover))[-1]
        tokens_MND = self.tokens(seen_MDhw.flatten(2).transpose(1, 2)) + self.position
        real = float(len(owner_M) > 0)  # a stand-in counts nothing
        owner_M = owner_M if len(owner_M) else torch.zeros(len(pixels_MCHW), dtype=torch.long, device=text_BD.device)
        caption_M1D = self.caption(text_BD[owner_M])[:, None]
        predicted_MNP = self.pixels(self.blocks(torch.cat([caption_M1D, tokens_MND], 1))[:, 1:])
        error_MN = (predicted_MNP.float() - self._targets(pixels_MCHW)).square().mean(-1)
        return {"masked": (error_MN * hidden_MN).sum() * real, "masked_count": hidden_MN.sum().float() * real}

    def _targets(self, pixels_MCHW: Tensor) -> Tensor:
        """Each cell's pixels M,N,P, scaled to CELL_PIXELS squared, with zero mean and unit variance."""
        rows, columns = self.grid
        small = F.interpolate(pixels_MCHW, size=(rows * CELL_PIXELS, columns * CELL_PIXELS), mode="area")
        cells = F.unfold(small, CELL_PIXELS, stride=CELL_PIXELS).transpose(1, 2)
        return (cells - cells.mean(-1, keepdim=True)) / (cells.var(-1, keepdim=True) + 1e-6).sqrt()
