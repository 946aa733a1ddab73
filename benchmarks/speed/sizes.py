"""How large a comparison is, and what a side reports of itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
"""The towers of the preset `tiny`."""

TINY_LLM: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
SMALL_LLM = {**TINY_LLM, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8}
HALF_BILLION_LLM: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
"""The shape of Qwen2.5-0.5B, random weights, a byte a token."""


@dataclass(frozen=True, slots=True)
class Size:
    """One comparison.

    Args:
        clip: a model config as open_clip writes it, or None: the model of that name.
        llm: an LLM's config; unused where towers are aligned.
        samples: of the release; batch: samples a step; peer_micro: samples that the peer's Trainer passes at once.
        warm, steps: steps before the clock starts, and on it.
        pack_length: tokens of a row of ours.
        peak_tflops: what the MFU is a share of; None: the GPU's own, as its maker states it.
    """

    device: str
    clip: dict[str, Any] | None
    llm: dict[str, Any] = field(default_factory=dict)
    samples: int = 256
    batch: int = 32
    peer_micro: int = 32
    warm: int = 2
    steps: int = 4
    workers: int = 1
    pack_length: int = 1024
    compile: bool = False
    peak_tflops: float | None = None
    model: str = "ViT-B-32"


def picture_tokens(size: Size) -> int:
    """Places that a picture takes in our rows: a patch each."""
    import open_clip

    vision = (size.clip or open_clip.get_model_config(size.model))["vision_cfg"]
    return int((vision.get("image_size", 224) // vision["patch_size"]) ** 2)


def align_size(device: str, quick: bool, cores: int) -> Size:
    """ViT-B/32 at a batch of 1,024 on a GPU; at 16 on a CPU; the tiny towers in a hurry."""
    if device == "cuda":
        steps = (5, 10) if quick else (20, 60)
        workers = max(1, cores - 2)
        return Size(device, None, {}, 16_384, 1024, 1024, *steps, workers, compile=True)
    if quick:
        return Size(device, TINY_CLIP, {}, 128, 32, 32, 2, 3)
    return Size(device, None, {}, 256, 16, 16, 2, 4)


def joint_size(device: str, quick: bool, cores: int) -> Size:
    """A 0.5B language model and ViT-B/32 on a GPU; small ones on a CPU."""
    if device == "cuda":
        steps = (5, 10) if quick else (20, 60)
        workers = max(1, cores - 2)
        return Size(device, None, HALF_BILLION_LLM, 16_384, 512, 16, *steps, workers, 4096, compile=True)
    if quick:
        return Size(device, TINY_CLIP, TINY_LLM, 128, 16, 16, 2, 3)
    return Size(device, TINY_CLIP, SMALL_LLM, 512, 32, 32, 2, 4)


@dataclass(frozen=True, slots=True)
class Speed:
    """What a side did on the clock.

    Args:
        work: samples, or real tokens, those of pictures among them.
        padded: tokens with padding; 0 where samples are counted.
        data_wait: share of the time that the step waited for data; None: not measured.
    """

    work: float
    seconds: float
    padded: float = 0.0
    mfu: float | None = None
    data_wait: float | None = None

    def write(self, path: str) -> None:
        Path(path).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str) -> Speed:
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
