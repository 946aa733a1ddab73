"""A release of pictures of two colours whose captions name them, and a scorer that knows nothing yet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mmdata.config import Score
from tests.support.made_release import Sample, write_release
from tests.support.tiny_run import TEXT, VISION
from training.model.encoders import build_encoder
from training.model.scorer_folder import save_scorer
from training.model_config import Audio, Encoder

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}

TINY = [
    *("align.steps=120", "align.batch_size=64", "align.lr=0.002", "align.warmup_steps=10", "align.crop_scale=1.0"),
    *("align.freeze_image=false", "align.freeze_text=false", "align.validate_every=1000", "data.workers=0"),
    *("align.checkpoint_every=1000", "device=cpu"),
]
"""Settings of training that suit the tiny towers."""


def coloured_release(root: Path, pairs: int = 400, shuffled: bool = False, seed: int = 0) -> Path:
    """Every fifth pair is held out. Shuffled: each caption is another picture's."""
    rng = np.random.default_rng(seed)
    names = list(COLOURS)
    chosen = rng.integers(0, len(names), (pairs, 2))
    told = rng.permutation(chosen) if shuffled else chosen
    samples = []
    for at in range(pairs):
        caption = f"{names[told[at, 0]]} beside {names[told[at, 1]]}, {at}"
        media = {"jpg": _picture(chosen[at], rng)}
        samples.append(Sample(caption, media, "validation" if at % 5 == 0 else "train"))
    return Path(write_release(root, samples, shard_samples=80).root.path)


def tiny_scorer(folder: Path) -> Score:
    """Random towers, written as a scorer."""
    import torch

    torch.manual_seed(0)
    encoder = Encoder(kind="open_clip", config={"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT})
    save_scorer(build_encoder(encoder, Audio()), encoder, folder)
    return Score(model=f"local-dir:{folder}", pretrained=None, device="cpu")


def _picture(colours: np.ndarray, rng: np.random.Generator) -> bytes:
    halves = np.array([list(COLOURS.values())[colour] for colour in colours], np.float64)
    pixels = np.repeat(halves, 16, axis=0)[None].repeat(32, 0) + rng.normal(scale=12, size=(32, 32, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
