"""What each stage does with a batch: a training step, or a measurement on held-out batches."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import nn

from training.config import TrainConfig
from training.data.batch_types import Batch, PairBatch, RowBatch
from training.distributed.gradients import Autocast, ScaleLoss
from training.distributed.process_mesh import Mesh
from training.model.multimodal_lm import MultimodalLm
from training.stages.align import AlignStep, pair_losses
from training.stages.generative import GenerativeStep, global_tokens, with_stand_ins
from training.stages.held_out_pairs import HeldOutPairs
from training.stages.pipeline import PipelineStep
from training.stages.stage_model import StageModel, generative_settings

Step = AlignStep | GenerativeStep | PipelineStep


def make_step(
    built: StageModel,
    wrapped: nn.Module,
    config: TrainConfig,
    mesh: Mesh,
    autocast: Autocast = nullcontext,
    scaled: ScaleLoss = lambda loss: loss,
) -> Step:
    """The forward and backward pass of a stage's batches. Args: wrapped: the model, wrapped for its parallelism."""
    if built.stage == "align":
        return AlignStep(wrapped, config.align, mesh, autocast, scaled)
    stage = generative_settings(built.stage, config)
    if mesh.size("pp") > 1:
        assert isinstance(built.model, MultimodalLm)
        return PipelineStep(built.model, stage, mesh, autocast, built.tied, scaled)
    return GenerativeStep(wrapped, stage, mesh, autocast, scaled)


@torch.no_grad()
def validate(
    built: StageModel,
    wrapped: nn.Module,
    batches: Iterable[Batch],
    config: TrainConfig,
    mesh: Mesh,
    autocast: Autocast = nullcontext,
    step: Step | None = None,
) -> dict[str, float]:
    """Held-out metrics, the same on all ranks: `val/loss`, and recall or perplexity.

    Args:
        batches: this rank's shares of the batches that all ranks measure.
        step: the training step, if its forward pass is a pipeline's.
    """
    wrapped.eval()
    if built.stage == "align":
        return _validate_pairs(wrapped, batches, config, mesh, autocast)
    stage = generative_settings(built.stage, config)
    sums = torch.zeros(2, dtype=torch.float64, device=mesh.device)  # loss, tokens
    for batch in batches:
        assert isinstance(batch, RowBatch)
        if isinstance(step, PipelineStep):
            loss, tokens = step.validate(batch)
        else:
            tokens = global_tokens(batch, mesh)
            with autocast():
                loss = wrapped(with_stand_ins(batch, wrapped), False, stage.chunked_loss)["loss"]
            loss = mesh.sum(loss.detach().double())
        sums[0] += loss
        sums[1] += tokens
    mean = float(sums[0] / sums[1])
    return {"val/loss": mean, "val/perplexity": float(torch.tensor(mean).exp()), "val/tokens": float(sums[1])}


def _validate_pairs(
    wrapped: nn.Module, batches: Iterable[Batch], config: TrainConfig, mesh: Mesh, autocast: Autocast
) -> dict[str, float]:
    total, places = torch.zeros((), dtype=torch.float64), 0
    pairs = HeldOutPairs(mesh)
    for batch in batches:
        assert isinstance(batch, PairBatch)
        with autocast():
            output = wrapped(batch)
        shares = pair_losses(output, batch, config.align, mesh)
        loss = torch.stack([config.align.loss_weights[name] * share for name, share in shares.items()]).sum()
        total += mesh.sum(loss.detach().double()).cpu() * len(batch.weight)
        places += len(batch.weight)
        pairs.add(output, batch)
    scores = pairs.scores()
    recalls = [value for name, value in scores.items() if name.endswith("/recall@1")]
    return {
        "val/loss": float(total / places),
        **{f"val/{name}": value for name, value in scores.items()},
        "val/recall@1": sum(recalls) / max(1, len(recalls)),
    }
