"""Variations of the copies of a rare sample, each decided by the seed that the release gave to the copy.

The same seed gives the same variation in every epoch and on every machine. The first copy is not varied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch

from mmdata.score.preprocess import Crop
from training.data.order import derived_seed

MIN_CROP_SCALE = 0.7  # of a picture's area
MAX_JITTER = 0.2  # relative change of brightness, contrast and saturation
SPEED_RANGE = (0.9, 1.1)
MAX_GAIN_DB = 6.0  # up or down
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@dataclass(frozen=True, slots=True)
class RandomCrops:
    """Crops each sample anew in each pass.

    Args:
        scale: the smallest share of a picture's area that is kept.
        seed: of the draws, with the number of the sample and of the pass.
    """

    scale: float
    seed: int

    def of(self, index: int, pass_number: int) -> Crop:
        """The crop of a sample's pictures in a pass."""
        return random_crop(self.scale, derived_seed(self.seed, pass_number, index))


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

    @property
    def crop(self) -> Crop:
        """Of the pictures; all frames of a clip have the same."""
        return random_crop(MIN_CROP_SCALE, self.seed)

    def pictures(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Change the colours of the pictures, in the same way for all frames of a clip."""
        return jittered(pixels_NCHW, self._draws("colour"))

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


def random_crop(scale: float, seed: int) -> Crop:
    """A crop of at least `scale` of the area, with sides in a ratio between 3/4 and 4/3 of the picture's.

    The draws are those of RandomResizedCrop, of which `mmdata.score.decode.decode_pixels` does the resize.
    """
    draws = Random(seed)  # made in a tenth of the time that numpy's generator takes
    area = draws.uniform(scale, 1.0)
    # A more extreme aspect ratio would not fit into the picture; cutting it off would leave less than `area`.
    max_log_ratio = max(0.0, min(math.log(4 / 3), -math.log(area)))
    ratio = math.exp(draws.uniform(-max_log_ratio, max_log_ratio))
    height, width = min(1.0, math.sqrt(area / ratio)), min(1.0, math.sqrt(area * ratio))
    return Crop(draws.uniform(0, 1 - height), draws.uniform(0, 1 - width), height, width)


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


def own_columns(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The source's own columns of a sample."""
    extra = _json_member(members).get("extra")
    extra = _parsed(extra) if isinstance(extra, str) else extra  # an object in releases of format 1
    return extra if isinstance(extra, dict) else {}


def caption_variants(members: Mapping[str, bytes]) -> list[str]:
    """Other wordings of a sample's caption: the source's column `variants`, a list of texts."""
    variants = own_columns(members).get("variants")
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
