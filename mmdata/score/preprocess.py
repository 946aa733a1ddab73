"""Preprocessing of pictures as open_clip does it: the settings as data, and resizing, cropping, padding on uint8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The settings that open_clip calls `preprocess_cfg`.

    Args:
        mean, std: of RGB in [0, 1].
        resize_mode: `shortest`: resize the shorter side to `size`, then crop the centre; `longest`: resize the longer
            side, then pad; `squash`: resize both sides.
    """

    size: tuple[int, int]  # height and width in pixels that the image tower takes
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # of the resize
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0  # grey level of the padding

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> Preprocess:
        """From open_clip's mapping (`model.visual.preprocess_cfg`); `random` interpolation means bicubic there."""
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


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture, after it was resized and cropped or padded to the size that the tower takes.

    Args: top, left, height, width: shares of that size, in [0, 1].
    """

    top: float
    left: float
    height: float
    width: float

    def of(self, crop: Crop) -> Crop:
        """This part of a part."""
        top, left = crop.top + self.top * crop.height, crop.left + self.left * crop.width
        return Crop(top, left, self.height * crop.height, self.width * crop.width)


def _triple(values: Any) -> tuple[float, float, float]:
    values = (values,) * 3 if isinstance(values, int | float) else tuple(values)
    return (float(values[0]), float(values[1]), float(values[2]))


def resized_size(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Height and width after the resize, before crop or padding; rounded as open_clip's transform rounds."""
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
    """Resize uint8 H,W,3 with antialiasing: like Pillow's resize within one grey level, and 2 to 3 times as fast."""
    import torch

    if pixels.shape[:2] == (height, width):
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size=(height, width), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def fit_picture(pixels: np.ndarray, original_size: tuple[int, int], preprocess: Preprocess, out: np.ndarray) -> None:
    """Resize a picture, crop its centre or pad it, and write it into `out`.

    Args:
        pixels: uint8 H,W,3 RGB, perhaps decoded at a fraction of its size.
        original_size: height and width of the whole picture; the resized size is computed from it.
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


def fit_crop(
    pixels: np.ndarray, original_size: tuple[int, int], preprocess: Preprocess, crop: Crop, out: np.ndarray
) -> None:
    """Resize a part of a picture to the whole of `out`, in one operation; `fit_picture` and a crop would take two.

    Args: as of `fit_picture`.
    """
    sides = zip(pixels.shape, resized_size(*original_size, preprocess), out.shape[:2], strict=False)
    parts = ((crop.top, crop.height), (crop.left, crop.width))
    (rows, to_rows), (columns, to_columns) = (
        _source_and_target(*lengths, *part) for lengths, part in zip(sides, parts, strict=True)
    )
    if to_rows != slice(0, out.shape[0]) or to_columns != slice(0, out.shape[1]):
        out[:] = preprocess.fill_color
    height, width = to_rows.stop - to_rows.start, to_columns.stop - to_columns.start
    if height and width:
        out[to_rows, to_columns] = resize(pixels[rows, columns], height, width, preprocess.interpolation)


def _source_and_target(stored: int, resized: int, target: int, start: float, length: float) -> tuple[slice, slice]:
    """Along one side: which of the stored pixels a crop shows, and where they come to lie in the result.

    Args:
        stored, resized, target: pixels as decoded, after the resize, and after it was cropped or padded.
        start, length: of the crop, as shares of `target`.
    """
    margin = max(target - resized, 0) // 2 - round(max(resized - target, 0) / 2)  # below 0 where it is cut off
    scale = stored / resized
    first, last = (start * target - margin) * scale, ((start + length) * target - margin) * scale
    inside = min(max(first, 0.0), stored), min(max(last, 0.0), stored)
    begin, end = (round((at - first) / (last - first) * target) for at in inside)
    low = min(round(inside[0]), stored - 1)
    return slice(low, max(round(inside[1]), low + 1)), slice(begin, end)
