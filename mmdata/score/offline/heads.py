"""The trained projections on top of the packaged towers: two small modules in place of open_clip's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGE_WIDTH = 1280  # of EfficientNet-Lite0's pooled features
TEXT_WIDTH = 384  # of all-MiniLM-L6-v2
CLASSES = 1000  # of ImageNet, in the order of the packaged classifier


def image_head(classifier_weight: Tensor, classifier_bias: Tensor, dim: int) -> nn.Module:
    """Features (N, 1280) -> (N, dim): a linear map of the features plus one of the packaged classifier's soft answer.

    The second term is ConSE (Norouzi et al., 2013, arXiv:1312.5650) with a learned column a class.

    Args:
        classifier_weight: (1000, 1280), packaged and frozen.
        classifier_bias: (1000,).
    """
    import torch
    from torch import nn

    class ImageHead(nn.Module):
        classifier_weight: Tensor
        classifier_bias: Tensor
        temperature: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("classifier_weight", classifier_weight.clone())
            self.register_buffer("classifier_bias", classifier_bias.clone())
            self.register_buffer("temperature", torch.ones(()))
            self.features = nn.Linear(IMAGE_WIDTH, dim)
            self.classes = nn.Linear(CLASSES, dim, bias=False)

        def forward(self, features: Tensor) -> Tensor:
            logits = nn.functional.linear(features, self.classifier_weight, self.classifier_bias)
            answer = (logits / self.temperature).softmax(dim=-1)
            return self.features(nn.functional.normalize(features, dim=-1)) + self.classes(answer)

    return ImageHead()


def text_head(dim: int) -> nn.Module:
    """Mean-pooled token states (N, 384) -> (N, dim): unit length, as MiniLM was trained, then a linear map."""
    from torch import nn

    class TextHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(TEXT_WIDTH, dim)

        def forward(self, pooled: Tensor) -> Tensor:
            return self.project(nn.functional.normalize(pooled, dim=-1))

    return TextHead()
