"""The training loop: rates, weight decay, and runs whose numbers go wrong."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmdata.errors import DataError
from tests.support.tiny_run import alone, built_stage, release_at, settings
from training.checkpoint.checkpoints import Progress, list_checkpoints, read_progress
from training.config import Align, TrainConfig
from training.data.batch_readers import Share
from training.data.sample_index import open_training_release
from training.run import train
from training.stages.stage_model import StageModel, load_model
from training.stages.stage_reader import make_reader
from training.step_log import StepLog
from training.trainer import MAX_SKIPPED_STEPS, StageResult, Trainer, learning_rate, make_optimizer, precision


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    return release_at(tmp_path_factory.mktemp("release"))


def train_fp16(
    release: str, folder: Path, steps: int, gradient_of_step: Callable[[int, Tensor], Tensor]
) -> StageResult:
    """Train stage `align` in fp16 on the CPU. A function sees, and may replace, the gradient of one parameter."""
    sections: dict[str, Any] = {"parallel": {"precision": "fp16"}}
    config: TrainConfig = settings(align={"steps": steps, "log_every": 1, "checkpoint_every": 1}, **sections)
    built = built_stage("align", config)
    backward_passes = [0]

    def replaced(gradient: Tensor) -> Tensor:
        backward_passes[0] += 1
        return gradient_of_step(backward_passes[0], gradient)

    built.model.logit_scale.register_hook(replaced)  # type: ignore[union-attr,operator]
    return train_built(built, config, release, folder)


def train_built(built: StageModel, config: TrainConfig, release: str, folder: Path) -> StageResult:
    """Train a model of stage `align` as it is."""
    opened = open_training_release(release, folder / "data")
    reader = make_reader(built, opened, config, "train", config.align.batch_size, Share())
    log = StepLog(folder, config.log, True)
    trainer = Trainer(built, built.model, config, config.align, alone(), (reader, None), folder, log)
    return trainer.run(Progress("align", 0, 0, opened.id, opened.digest, config.model_dump(mode="json")), None)


def infinite(gradient: Tensor) -> Tensor:
    return torch.full_like(gradient, torch.inf)


@pytest.mark.parametrize("steps", [3, MAX_SKIPPED_STEPS + 5])
def test_an_fp16_run_that_overflows_at_every_step_ends_with_an_error(release: str, tmp_path: Path, steps: int) -> None:
    last = min(steps, MAX_SKIPPED_STEPS)
    scale = 2.0 ** (16 - last)  # it begins at 2^16 and halves at each skipped step
    error = rf"step {last}: the fp16 gradient overflowed at each of the last {last} steps.*scale is down to {scale:g}"
    with pytest.raises(DataError, match=rf"{error}.*Remedy: parallel\.precision"):
        train_fp16(release, tmp_path, steps, lambda _, gradient: infinite(gradient))
    assert len(list_checkpoints(tmp_path / "checkpoints")) <= 2


def test_an_fp16_run_survives_overflows_at_its_beginning(release: str, tmp_path: Path) -> None:
    def first_overflow(step: int, gradient: Tensor) -> Tensor:
        return infinite(gradient) if step < MAX_SKIPPED_STEPS else gradient

    result = train_fp16(release, tmp_path, MAX_SKIPPED_STEPS + 2, first_overflow)
    assert (result.stopped, result.steps) == ("finished", MAX_SKIPPED_STEPS + 2)


def test_an_fp16_run_resumes_to_the_bit_with_its_loss_scale(release: str, tmp_path: Path) -> None:
    section = {"steps": 4, "log_every": 1, "checkpoint_every": 2, "validate_every": 10**6}
    config = settings(align=section, parallel={"precision": "fp16"}, keep_checkpoints=9)
    whole = train(release, ["align"], config, tmp_path / "whole")[0]
    checkpoints = whole.checkpoint.parent
    half = read_progress(checkpoints / "step-00000002")
    assert half.loss_scale["clean_steps"] + half.loss_scale["skipped_in_a_row"] > 0
    (tmp_path / "cut" / "align" / "checkpoints").mkdir(parents=True)
    shutil.copytree(checkpoints / "step-00000002", tmp_path / "cut" / "align" / "checkpoints" / "step-00000002")
    resumed = train(release, ["align"], config, tmp_path / "cut")[0]
    assert read_progress(resumed.checkpoint).loss_scale == read_progress(whole.checkpoint).loss_scale
    assert resumed.last_loss == whole.last_loss
    ours, theirs = (load_model(result.checkpoint)[0].model.state_dict() for result in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_the_scale_of_the_logits_stays_within_100_but_for_siglip(release: str, tmp_path: Path, loss: str) -> None:
    """From its first step on, and in what it saves; here its gradient always says up."""
    config = settings(align={"steps": 2, "loss": loss, "lr": 0.1, "warmup_steps": 0})
    built, scales = built_stage("align", config), []
    scale: Any = built.model.logit_scale
    scale.data.fill_(6.0)  # as an older checkpoint may have it
    scale.register_hook(lambda gradient: gradient.abs().neg() - 1)
    built.model.register_forward_hook(lambda _model, _inputs, outputs: scales.append(float(outputs["scale"].detach())))
    result = train_built(built, config, release, tmp_path)
    saved = float(load_model(result.checkpoint)[0].model.logit_scale.detach())  # type: ignore[union-attr,operator]
    assert scales and all((value <= math.log(100) + 1e-6) == (loss == "infonce") for value in scales)
    assert saved > 6.0 if loss == "siglip" else saved == pytest.approx(math.log(100))


def test_the_learning_rate_warms_up_and_falls_to_its_last_share() -> None:
    stage = Align(steps=110, warmup_steps=10, lr=2.0, min_lr_ratio=0.1)
    rates = [learning_rate(stage, step) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx((2.0 + 0.2) / 2), "halfway down the cosine"
    assert rates[110] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(stage.model_copy(update={"schedule": "constant"}), 100) == 2.0
    assert learning_rate(stage.model_copy(update={"warmup_steps": 0}), 0) == 2.0


def test_only_matrices_decay_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    groups = make_optimizer(model, Align(weight_decay=0.3), torch.device("cpu")).param_groups
    decayed, plain = groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert [p is model[0].weight for p in decayed["params"]] == [True]
    assert len(plain["params"]) == 3


def test_only_fp16_scales_gradients() -> None:
    cpu = torch.device("cpu")
    assert [precision(name, cpu)[1] for name in ("auto", "fp32", "bf16", "fp16")] == [False, False, False, True]
    with precision("bf16", cpu)[0]():
        assert torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype == torch.bfloat16
