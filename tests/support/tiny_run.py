"""A small real release and the smallest models that have every part, for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support import workspaces
from training.config import TrainConfig
from training.data.batch_readers import Share
from training.data.batch_types import Batch
from training.data.sample_index import open_training_release
from training.distributed.process_mesh import Mesh
from training.stages.stage_model import StageModel, build_model, freeze_and_adapt, keep_reference
from training.stages.stage_reader import make_reader

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
LLM = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def release_at(root: Path, samples: int = 48) -> str:
    """Build a release of numbered pictures; its workspace."""
    built = workspaces.build(str(root), {"web-000000": range(samples)})
    workspaces.release(built)
    return str(root)


def settings(**sections: Any) -> TrainConfig:
    """The smallest configuration; sections are merged over it, one level deep."""
    generative = {"steps": 4, "batch_size": 8, "pack_length": 192, "max_text_tokens": 120, "warmup_steps": 1}
    base: dict[str, Any] = {
        "model": {
            "encoder": {"kind": "open_clip", "config": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}},
            "llm": {"kind": "config", "config": LLM, "tokenizer": "bytes"},
        },
        "align": {"steps": 4, "batch_size": 8, "warmup_steps": 1, "lr": 1e-3},
        "joint": {**generative, "lr": 1e-3},
        "instruct": {**generative, "lr": 1e-3, "lora": {"r": 4}},
        "data": {"workers": 0, "block": 4, "window_blocks": 2},
        "device": "cpu",
    }
    for name, section in sections.items():
        base[name] = {**base[name], **section} if isinstance(section, dict) and name in base else section
    return TrainConfig.model_validate(base)


def alone() -> Mesh:
    import torch

    return Mesh(torch.device("cpu"), {})


def built_stage(stage: Any, config: TrainConfig) -> StageModel:
    """A stage's model, ready to train, without a stage before it."""
    built = build_model(stage, config)
    if stage != "align":
        freeze_and_adapt(built, config)
        keep_reference(built, config, torch.device("cpu"), torch.float32)
    return built


def first_batch(
    built: StageModel, config: TrainConfig, release: str, cache: Path, size: int = 8, **share: int
) -> Batch:
    """The first batch of the train split."""
    opened = open_training_release(release, cache)
    return make_reader(built, opened, config, "train", size, Share(**share))[0]
