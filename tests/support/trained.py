"""Checkpoints that look trained, for tests of what is made of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.support.tiny_run import LLM, built_stage, settings
from training.checkpoint.checkpoints import Progress
from training.checkpoint.saver import save
from training.config import TrainConfig
from training.data.sample_index import open_training_release
from training.evaluate.answer import question_batch
from training.stages.generative import with_stand_ins
from training.stages.stage_model import StageModel

FUSIONS = [
    ("single_tower", "early"),
    ("single_tower", "late"),
    ("single_tower", "hierarchical"),
    ("single_tower", "attention"),
    ("cross_attention", "early"),
    ("cross_attention", "late"),
    ("cross_attention", "attention"),
]


def config_of(architecture: str = "single_tower", fusion: str = "early", llm: Any = LLM, **model: Any) -> TrainConfig:
    base = settings().model.model_dump()
    described = {"kind": "config", "config": llm, "tokenizer": "bytes"}
    return settings(
        model={**base, "architecture": architecture, "fusion": fusion, "queries": 4, "llm": described, **model}
    )


def checkpoint_of(folder: Path, stage: Any, config: TrainConfig, release: str | None = None) -> Path:
    """A checkpoint whose adapters and gates have something to say, as if it had been trained."""
    built = built_stage(stage, config)
    torch.manual_seed(1)
    for name, parameter in built.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
        if name.endswith(("gate", "gate_mlp")):
            parameter.data.fill_(0.7)
    opened = None if release is None else open_training_release(release, folder / "data")
    id_, digest = (opened.id, opened.digest) if opened else ("none", "none")
    progress = Progress(stage, 7, 56, id_, digest, config.model_dump(mode="json"))
    return save(folder / stage / "checkpoints", built.model, None, progress, 1)


def photo(seed: int) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def pixels(seed: int, count: int = 1) -> torch.Tensor:
    """Pictures of noise: uint8 N,3,32,32."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 255, (count, 3, 32, 32), np.uint8))


@torch.no_grad()
def hidden(built: StageModel, shown: torch.Tensor) -> torch.Tensor:
    """The last state before the answer to a question about pictures."""
    model: Any = built.model
    row = with_stand_ins(question_batch(built, shown, "What is this?" if built.stage == "instruct" else ""), model)
    hidden_RLD = model.hidden(model.llm, model.embed(row), row)
    model._context.clear()
    return hidden_RLD[0, -1]
