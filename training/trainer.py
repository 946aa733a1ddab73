"""The loop that runs every stage: read, forward and backward, clip, step, log, validate, save."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmdata.errors import DataError
from training.checkpoint.checkpoints import Progress, restore, save
from training.config import Stage, TrainConfig
from training.data.batch_readers import Reader, batches, first_batches
from training.data.batch_types import Batch, to_device
from training.data.order import derived_seed
from training.distributed.gradients import clip_gradients
from training.distributed.process_mesh import Mesh
from training.stages.stage_model import StageModel, train_mode
from training.stages.stage_step import make_step, validate
from training.step_log import Meter, StepLog

MIN_READ = 200  # samples before a share of bad ones means anything
MAX_SKIPPED = 10  # fp16 steps skipped in a row before the run is lost

Stopped = Literal["finished", "early", "signal"]


@dataclass
class Outcome:
    """How a stage ended."""

    progress: Progress
    checkpoint: Path
    stopped: Stopped
    first_loss: float
    last_loss: float
    seconds: float


class Trainer:
    """Trains one stage.

    Args:
        built: the model, on the mesh's device, its weights taken.
        wrapped: the same, wrapped for its parallelism.
        readers: of the train split and the held-out one (None: nothing is held out).
    """

    def __init__(
        self,
        built: StageModel,
        wrapped: nn.Module,
        config: TrainConfig,
        settings: Stage,
        mesh: Mesh,
        readers: tuple[Reader, Reader | None],
        folder: Path,
        log: StepLog,
    ) -> None:
        self._built, self._wrapped, self._config, self._settings = built, wrapped, config, settings
        self._mesh, self._folder, self._log = mesh, folder, log
        self._reader, self._held_out = readers
        self._parameters = [p for p in wrapped.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(wrapped, settings, mesh.device)
        self._autocast, fp16 = precision(config.parallel.precision, mesh.device)
        self._scaler = torch.amp.GradScaler(mesh.device.type, enabled=fp16)
        scaled = self._scaler.scale if fp16 else None
        self._step = make_step(built, wrapped, config, mesh, self._autocast, scaled)

    def run(self, progress: Progress, resumed: Path | None) -> Outcome:
        """Train from a state on; SIGTERM and SIGINT save and end it.

        Raises:
            DataError: a loss that is not a number, or too many unreadable samples.
        """
        if resumed is not None:
            restore(resumed, self._wrapped, self.optimizer)
        begun, first, last = time.monotonic(), math.nan, math.nan
        meter = Meter(self._built, self._config, self._mesh)
        stream = batches(self._reader, progress.consumed, self._config.data.workers, self._config.data.prefetch)
        checkpoint, stopped = resumed, "finished"
        with _signals() as told:
            while progress.step < self._settings.steps:
                batch = meter.waited(lambda: to_device(next(stream), self._mesh.device))
                shares = self.train_step(batch, progress.step)
                progress = replace(
                    progress,
                    step=progress.step + 1,
                    consumed=batch.consumed,
                    bad=progress.bad + batch.bad,
                    read=progress.read + batch.read,
                )
                meter.count(batch, shares)
                stop = self._stop_told(told)
                ends = stop or progress.step == self._settings.steps
                if math.isnan(first) or progress.step % self._settings.log_every == 0 or ends:
                    line = meter.line(progress.step, self._settings.steps, self._rates(progress.step - 1))
                    last = line["loss"]
                    first = last if math.isnan(first) else first
                    self._check(progress, line)
                    self._log.write({"kind": "train", **line})
                if progress.step % self._settings.validate_every == 0 or (ends and not stop):
                    progress = self._validated(progress)
                    if self._is_patience_over(progress):
                        stop, stopped, ends = True, "early", True
                due = progress.step % self._settings.checkpoint_every == 0
                if due or ends or progress.best_step == progress.step:
                    keep = self._config.keep_checkpoints
                    checkpoint = save(self._folder / "checkpoints", self._wrapped, self.optimizer, progress, keep)
                if stop:
                    stopped = "signal" if stopped == "finished" else stopped
                    break
        assert checkpoint is not None
        return Outcome(progress, checkpoint, stopped, first, last, time.monotonic() - begun)  # type: ignore[arg-type]

    def train_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One optimiser step. Dropout depends on (seed, step, rank) alone.

        Raises:
            DataError: the gradient is not a number; the weights are as they were before.
        """
        train_mode(self._wrapped)
        torch.manual_seed(derived_seed(self._config.seed, 5, step, self._mesh.rank("dp")))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rates(step)
        shares = self._step(batch)
        self._scaler.unscale_(self.optimizer)
        norm = clip_gradients(self._parameters, self._settings.grad_clip, self._mesh)
        if self._scaler.is_enabled():
            self._scaler.step(self.optimizer)  # skips the update by itself where fp16 overflowed
            self._scaler.update()
        elif self._mesh.device.type == "cpu":
            if not bool(norm.isfinite()):
                raise DataError(_not_a_number(step + 1))
            self.optimizer.step()
        else:  # without waiting for the device: fused AdamW leaves the weights alone where found_inf is set
            self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {**shares, "grad_norm": norm}

    def _check(self, progress: Progress, line: dict[str, Any]) -> None:
        if not math.isfinite(line["loss"]) or (not self._scaler.is_enabled() and not math.isfinite(line["grad_norm"])):
            raise DataError(_not_a_number(progress.step))
        counts = torch.tensor([progress.bad, progress.read], dtype=torch.float64, device=self._mesh.device)
        bad, read = self._mesh.sum(counts).tolist()
        if read >= MIN_READ and bad > read * self._config.data.max_bad_share:
            raise DataError(
                f"{int(bad)} of {int(read)} samples could not be read, over data.max_bad_share "
                f"{self._config.data.max_bad_share:g}. Remedy: `mmdata verify --decode` names them."
            )
        line["bad_samples"] = int(bad)

    def _validated(self, progress: Progress) -> Progress:
        if self._held_out is None:
            return progress
        metrics = validate(
            self._built, self._wrapped, self.held_out(), self._config, self._mesh, self._autocast, self._step
        )
        self._log.write({"kind": "validation", "step": progress.step, **metrics})
        progress = replace(progress, metrics=metrics)
        early = self._settings.early_stop
        if early is None:
            return progress
        if early.metric not in metrics:
            raise DataError(f"early_stop.metric {early.metric!r} is not measured; there is: {', '.join(metrics)}")
        value, sign = metrics[early.metric], 1 if early.mode == "max" else -1
        if progress.best is None or sign * (value - progress.best) > early.min_delta:
            return replace(progress, best=value, best_step=progress.step, waited=0)
        return replace(progress, waited=progress.waited + 1)

    def held_out(self) -> list[Batch]:
        """The held-out batches that each validation looks at: the first of a fixed order."""
        assert self._held_out is not None
        reader = self._held_out
        return first_batches(reader, min(self._settings.validate_samples, len(reader.source)), self._mesh.device)

    def _is_patience_over(self, progress: Progress) -> bool:
        early = self._settings.early_stop
        return early is not None and progress.waited >= early.patience

    def _stop_told(self, told: list[int]) -> bool:
        """Whether any rank was told to stop: all of them stop at the same step."""
        flag = torch.tensor(float(bool(told)), device=self._mesh.device)
        if self._mesh.groups:
            import torch.distributed as dist

            dist.all_reduce(flag)
        elif self._mesh.device.type != "cpu":
            return bool(told)
        return bool(flag > 0)

    def _rates(self, step: int) -> float:
        return learning_rate(self._settings, step)


def learning_rate(settings: Stage, step: int) -> float:
    """Linear warm-up, then a cosine to `min_lr_ratio` of the peak, or constant. `step` counts from 0."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    low = settings.min_lr_ratio
    return settings.lr * (low + (1 - low) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def make_optimizer(model: nn.Module, settings: Stage, device: torch.device) -> torch.optim.AdamW:
    """AdamW on what is trained; weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, settings.lr, (0.9, settings.beta2), fused=device.type == "cuda")


def precision(name: str, device: torch.device) -> tuple[Callable[[], Any], bool]:
    """A maker of autocast contexts, and whether gradients need scaling."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" else "fp32"
    if name == "fp32":
        return nullcontext, False
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return lambda: torch.autocast(device.type, dtype), name == "fp16"


def _not_a_number(step: int) -> str:
    return (
        f"step {step}: the loss or its gradient is not a number; the weights were not updated with it. "
        "Remedy: a smaller lr, a longer warm-up, precision bf16 instead of fp16."
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them; a second SIGINT interrupts."""
    told: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if told and number == signal.SIGINT:
            raise KeyboardInterrupt
        told.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there stops us otherwise
        before = {}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
