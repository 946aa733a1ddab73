"""Validation measures all its batches together."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.device_waits import DeviceWaits
from tests.support.tiny_run import alone, built_stage, first_batch, settings
from training.config import StageName
from training.data.batch_readers import Share
from training.data.sample_index import open_training_release
from training.distributed.gradients import clip_gradients
from training.distributed.loss_scale import LossScale
from training.metrics.retrieval import retrieval_by_kind
from training.stages import align, generative
from training.stages.held_out_pairs import HeldOutPairs
from training.stages.stage_reader import make_reader
from training.stages.stage_step import make_step, validate
from training.stages.step_flops import StepFlops
from training.step_log import Meter


def test_rows_are_weighted_by_their_learned_tokens(numbered: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("joint", config)
    batches = [first_batch(built, config, numbered, tmp_path, size) for size in (2, 6)]
    one, other = (validate(built, built.model, [batch], config, alone()) for batch in batches)
    both = validate(built, built.model, batches, config, alone())
    tokens = one["val/tokens"] + other["val/tokens"]
    assert both["val/tokens"] == tokens
    mean = (one["val/loss"] * one["val/tokens"] + other["val/loss"] * other["val/tokens"]) / tokens
    assert both["val/loss"] == pytest.approx(mean)
    assert both["val/perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)


def test_pairs_are_ranked_among_those_of_all_batches(numbered: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("align", config)
    batch = first_batch(built, config, numbered, tmp_path)
    parts = list(batch.split(3))
    with torch.no_grad():
        whole, pairs = built.model(batch), HeldOutPairs(alone())
        for part in parts:
            pairs.add(built.model(part), part)
    scores = pairs.scores()
    assert scores == retrieval_by_kind(whole["text"], whole["visual"], None, batch.group)
    metrics = validate(built, built.model, [batch], config, alone())
    assert {name: metrics[f"val/{name}"] for name in scores} == scores
    sides = [scores[f"{side}/recall@1"] for side in ("image_to_text", "text_to_image")]
    assert metrics["val/recall@1"] == pytest.approx(sum(sides) / 2)


@pytest.mark.parametrize(("stage", "losses"), [("align", {"image", "video"}), ("joint", {"text"})])
def test_a_step_leaves_gradients_and_returns_its_losses(
    numbered: str, tmp_path: Path, stage: str, losses: set[str]
) -> None:
    config = settings()
    built = built_stage(stage, config)
    shares = make_step(built, built.model, config, alone())(first_batch(built, config, numbered, tmp_path))
    assert shares.keys() == losses
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in built.model.parameters())


CROSS = {**settings().model.model_dump(), "architecture": "cross_attention", "fusion": "hierarchical"}
# the kernel that transformers makes masks for looks at them; those for a GPU get no mask, or ours
MASKED = {**settings().model.model_dump()["llm"], "sliding_window": 1000}
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "align": ("align", {}),
    "align, siglip, masked, in pieces": (
        "align",
        {"align": {"loss": "siglip", "micro_batch": 3, "masked_weight": 0.1}},
    ),
    "joint": ("joint", {}),
    "joint, in pieces, with a reference": ("joint", {"joint": {"micro_batch": 1, "kl_weight": 0.1}}),
    "joint, cross-attention": ("joint", {"model": CROSS}),
    "instruct, with a reference": ("instruct", {"instruct": {"kl_weight": 0.1}}),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_does_not_wait_for_the_device(
    numbered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stage, sections = STEPS[name]
    model = sections.get("model", settings().model.model_dump())
    config = settings(**{**sections, "model": {**model, "llm": MASKED}})
    built = built_stage(stage, config)
    batch = first_batch(built, config, numbered, tmp_path)
    step = make_step(built, built.model, config, alone(), scaled=LossScale(torch.device("cpu"), True))
    meter = Meter(stage, config, alone(), StepFlops(built, config))
    reference = getattr(built.model, "reference", None)
    weights = [*built.model.parameters(), *built.model.buffers(), *(reference.parameters() if reference else ())]
    waits = DeviceWaits(weights)
    for module in (align, generative):
        monkeypatch.setattr(module, "to_device", waits.moved)
    with waits:
        losses = step(batch)
        norm = clip_gradients(built.model.parameters(), 1.0, alone(), torch.ones(()))
        meter.count(batch, {**losses, "grad_norm": norm})
    assert waits.found == []
    with waits:
        float(norm)
    assert waits.found, "a wait is found"


@pytest.mark.parametrize("stage", ["align", "joint"])
def test_held_out_batches_are_let_go_one_after_the_other(numbered: str, tmp_path: Path, stage: StageName) -> None:
    config = settings()
    built = built_stage(stage, config)
    reader = make_reader(built, open_training_release(numbered, tmp_path / "data"), config, "train", 4, Share())
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = []

    def held_out() -> Iterator[Any]:
        for at in range(6):
            batch: Any = reader[4 * at]
            alive.add(batch.picture if stage == "align" else batch.picture.data)
            most.append(len(alive))
            yield batch
            del batch

    validate(built, built.model, held_out(), config, alone())
    assert max(most) <= 2, "one is measured, the next is read"
