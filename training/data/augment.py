"""Copies of a rare sample, each varied by the seed that the release gave it; a first copy is left as it is.

The same seed gives the same variation in every epoch and on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.data.tensors import Variation, cropped

CROP_SCALE = 0.7  # least share of a picture's area that stays
JITTER = 0.2  # brightness, contrast and saturation change by at most this share
SPEED = (0.9, 1.1)
GAIN_DB = 6.0
_GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@dataclass(frozen=True, slots=True)
class Seeded(Variation):
    """What a seed makes of a sample's media.

    Args:
        seed: of the copy; not 0.
    """

    seed: int

    @property
    def speed(self) -> float:
        """How much faster the sound is played, its pitch with it."""
        return float(self._draws("speed").uniform(*SPEED))

    def pictures(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """A crop and other colours, the same for all frames of a clip."""
        return jittered(cropped(pixels_NCHW, CROP_SCALE, self.seed), self._draws("colour"))

    def sound(self, wave_S: np.ndarray) -> np.ndarray:
        """Louder or softer, never beyond full scale."""
        gain = 10 ** (self._draws("gain").uniform(-GAIN_DB, GAIN_DB) / 20)
        return np.clip(wave_S * np.float32(gain), -1, 1)

    def caption(self, caption: str, others: Sequence[str]) -> str:
        """The caption or one of the other ways to say it."""
        choices = [caption, *others]
        return choices[int(self._draws("caption").integers(len(choices)))]

    def _draws(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what.encode()])


def jittered(pixels_NCHW: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation changed, alike in all pictures.

    Args:
        pixels_NCHW: uint8, RGB.
    """
    brightness, contrast, saturation = (float(one) for one in 1 + draws.uniform(-JITTER, JITTER, 3))
    pixels = pixels_NCHW.float() * brightness
    mean = (pixels * _GREY).sum(1).mean()
    pixels = (pixels - mean) * contrast + mean
    grey = (pixels * _GREY).sum(1, keepdim=True)
    return ((pixels - grey) * saturation + grey).round().clamp(0, 255).to(torch.uint8)


def variation_of(members: Mapping[str, bytes]) -> Seeded | None:
    """What a sample's facts say that a copy is varied by; None for a first copy, and in releases of before."""
    seed = int(_facts(members).get("augment") or 0)
    return Seeded(seed) if seed else None


def other_captions(members: Mapping[str, bytes]) -> list[str]:
    """Other ways to say a sample's caption: the source's own column `variants`, a list of texts."""
    extra = _facts(members).get("extra")
    variants = extra.get("variants") if isinstance(extra, dict) else None
    return [text for text in variants if isinstance(text, str) and text.strip()] if isinstance(variants, list) else []


def _facts(members: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        facts = json.loads(members.get("json", b"{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
