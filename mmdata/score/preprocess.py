"""A model's preprocessing as data, and as the arithmetic of resizing, cropping and padding on uint8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What open_clip calls a preprocess_cfg.

    Args:
        size: height and width in pixels that the image tower takes.
        mean, std: of RGB in [0, 1].
        resize_mode: `shortest` side to size, then centre crop; `longest` side, then pad; `squash`.
        fill_color: grey level of the padding.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preprocess:
        """From open_clip's mapping (`model.visual.preprocess_cfg`); `random` interpolation is bicubic, as there."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
        return cls(
            size=(int(height), int(width)),
            mean=_triple(config.get("mean") or OPENAI_MEAN),
            std=_triple(config.get("std") or OPENAI_STD),
            interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
            resize_mode=config.get("resize_mode") or "shortest",
            fill_color=int(config.get("fill_color") or 0),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the fingerprint."""
        return asdict(self)


def _triple(values: Any) -> tuple[float, float, float]:
    values = (values,) * 3 if isinstance(values, int | float) else tuple(values)
    return (float(values[0]), float(values[1]), float(values[2]))


def resized_size(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Height and width after the resize and before the crop or pad, rounded as open_clip's transform rounds."""
    target_h, target_w = preprocess.size
    if preprocess.resize_mode == "squash":
        return target_h, target_w
    if preprocess.resize_mode == "shortest" and target_h == target_w:
        if height <= width:
            return target_h, max(target_h, int(target_h * width / height))
        return max(target_w, int(target_w * height / width)), target_w
    ratios = (height / target_h, width / target_w)
    ratio = max(ratios) if preprocess.resize_mode == "longest" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def resize(pixels: np.ndarray, height: int, width: int, interpolation: Literal["bicubic", "bilinear"]) -> np.ndarray:
    """Resize uint8 H,W,3 with antialiasing, as Pillow does to within a grey level, at two to three times its speed."""
    import torch

    if pixels.shape[:2] == (height, width):
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size=(height, width), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def fit(pixels: np.ndarray, original_size: tuple[int, int], preprocess: Preprocess, out: np.ndarray) -> None:
    """Resize, centre crop and pad a picture into `out`.

    Args:
        pixels: uint8 H,W,3 RGB, perhaps decoded at a fraction of its size.
        original_size: height and width of the whole picture, which the resize is computed from.
        out: uint8 of `preprocess.size` and 3; overwritten.
    """
    height, width = resized_size(*original_size, preprocess)
    resized = resize(pixels, height, width, preprocess.interpolation)
    target_h, target_w = out.shape[:2]
    if height < target_h or width < target_w:
        out[:] = preprocess.fill_color
    top, left = round(max(height - target_h, 0) / 2), round(max(width - target_w, 0) / 2)
    down, right = max(target_h - height, 0) // 2, max(target_w - width, 0) // 2
    part = resized[top : top + target_h, left : left + target_w]
    out[down : down + part.shape[0], right : right + part.shape[1]] = part
