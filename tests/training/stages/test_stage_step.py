"""Validation measures all its batches together."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.support.tiny_run import alone, built_stage, first_batch, settings
from training.metrics.retrieval import retrieval_by_kind
from training.stages.stage_step import make_step, pair_scores, validate


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
        whole, outputs = built.model(batch), [built.model(part) for part in parts]
    scores = pair_scores(outputs, parts, alone())
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
