"""Variations of the copies of a rare sample, each decided by the seed that the release gave to the copy.

The same seed gives the same variation in every epoch and on every machine. The first copy is not varied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

MIN_CROP_SCALE = 0.7  # of a picture's area
MAX_JITTER = 0.2  # relative change of brightness, contrast and saturation
SPEED_RANGE = (0.9, 1.1)
MAX_GAIN_DB = 6.0  # up or down
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@dataclass(frozen=True, slots=True)
class SeededVariation:
    """The variation of a sample's media that a seed decides. Args: seed: of the copy; not 0."""

    seed: int

    @property
    def name(self) -> bytes:
        """Names the variation in the keys of cached features."""
        return f"variation {self.seed}".encode()

    @property
    def speed(self) -> float:
        """How much faster the sound is played; the pitch changes with it."""
        return float(self._draws("speed").uniform(*SPEED_RANGE))

    def pictures(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Crop the pictures and change their colours, in the same way for all frames of a clip."""
        return jittered(random_crop(pixels_NCHW, MIN_CROP_SCALE, self.seed), self._draws("colour"))

    def sound(self, wave_S: np.ndarray) -> np.ndarray:
        """Make the sound louder or softer, within full scale."""
        gain = 10 ** (self._draws("gain").uniform(-MAX_GAIN_DB, MAX_GAIN_DB) / 20)
        return np.clip(wave_S * np.float32(gain), -1, 1)

    def caption(self, caption: str, variants: Sequence[str]) -> str:
        """The caption or one of its variants."""
        choices = [caption, *variants]
        return choices[int(self._draws("caption").integers(len(choices)))]

    def _draws(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose.encode()])


def random_crop(pixels_NCHW: torch.Tensor, scale: float, seed: int) -> torch.Tensor:
    """The same random crop of all frames, resized to their old size (RandomResizedCrop).

    Args:
        pixels_NCHW: uint8.
        scale: the crop has at least this share of the area.
    """
    height, width = pixels_NCHW.shape[-2:]
    draws = np.random.default_rng(seed)
    area = draws.uniform(scale, 1.0)
    # A more extreme aspect ratio would not fit into the picture; cutting it off would leave less than `area`.
    max_log_ratio = max(0.0, min(np.log(4 / 3), -np.log(area)))
    ratio = np.exp(draws.uniform(-max_log_ratio, max_log_ratio))
    rows = max(1, round(height * float(np.sqrt(area / ratio))))
    columns = max(1, round(width * float(np.sqrt(area * ratio))))
    top, left = draws.integers(height - rows + 1), draws.integers(width - columns + 1)
    crop = pixels_NCHW[..., top : top + rows, left : left + columns].float()
    size = (height, width)
    resized = torch.nn.functional.interpolate(crop, size, mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8)


def jittered(pixels_NCHW: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
    """Change brightness, contrast and saturation, in the same way for all pictures. Args: pixels_NCHW: uint8, RGB."""
    brightness, contrast, saturation = (1 + draws.uniform(-MAX_JITTER, MAX_JITTER, 3)).tolist()
    pixels = pixels_NCHW.float() * brightness
    mean = (pixels * _LUMA).sum(1).mean()
    pixels = (pixels - mean) * contrast + mean
    grey = (pixels * _LUMA).sum(1, keepdim=True)
    return ((pixels - grey) * saturation + grey).round().clamp(0, 255).to(torch.uint8)


def variation_of(members: Mapping[str, bytes]) -> SeededVariation | None:
    """The variation that a sample's JSON names; None for a first copy, and in releases that name no seeds."""
    seed = int(_json_member(members).get("augment") or 0)
    return SeededVariation(seed) if seed else None


def caption_variants(members: Mapping[str, bytes]) -> list[str]:
    """Other wordings of a sample's caption: the source's column `variants`, a list of texts."""
    extra = _json_member(members).get("extra")
    extra = _parsed(extra) if isinstance(extra, str) else extra  # an object in releases of format 1
    variants = extra.get("variants") if isinstance(extra, dict) else None
    return [text for text in variants if isinstance(text, str) and text.strip()] if isinstance(variants, list) else []


def generated_caption(members: Mapping[str, bytes]) -> str:
    """The caption that a model made for a sample; empty if none did."""
    caption = _json_member(members).get("generated_caption")
    return caption if isinstance(caption, str) else ""


def _json_member(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The sample's JSON member; empty if there is none, or if it is not a JSON object."""
    facts = _parsed(members.get("json", b"{}"))
    return facts if isinstance(facts, dict) else {}


def _parsed(text: str | bytes) -> Any:
    """The value of a JSON text; None if it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
