"""The training loop of every stage: read a batch, forward, backward, clip, update, log, validate, save."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmdata.errors import DataError
from training.checkpoint.checkpoints import Progress, restore, step_name
from training.checkpoint.saver import CheckpointSaver
from training.config import Stage, StageName, TrainConfig
from training.data.batch_readers import Reader
from training.data.batch_stream import batches, first_batches
from training.data.batch_types import Batch
from training.data.order import derived_seed
from training.distributed.gradients import clip_gradients
from training.distributed.loss_scale import LossScale
from training.distributed.parallelism import compute_dtype
from training.distributed.process_mesh import Mesh
from training.distributed.watchdog import Watchdog
from training.model.encoders import DualEncoder
from training.stages.align import limit_scale
from training.stages.stage_model import StageModel, train_mode
from training.stages.stage_step import make_step, validate
from training.stages.step_flops import StepFlops
from training.step_log import Meter, StepLog

MIN_SAMPLES_READ = 200  # with fewer, the share of bad samples says nothing
MAX_SKIPPED_STEPS = 10  # fp16 steps without an update in a row before the run ends; a healthy run skips a few

Stopped = Literal["finished", "early", "signal"]


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended; the content of `result.json`."""

    stage: StageName
    folder: Path  # `<output>/<stage>`
    checkpoint: Path  # for the next stage: the best one under early stopping, else the last
    steps: int  # trained on so far, earlier runs included
    samples: int  # trained on so far, earlier runs included
    first_loss: float  # of the first and the last log line; NaN if there was nothing to do
    last_loss: float  # of the first and the last log line; NaN if there was nothing to do
    metrics: dict[str, float]  # of the last validation
    stopped: Stopped  # `finished` all steps, `early` because validation no longer improved, or by a `signal`
    seconds: float  # of the last run of this stage

    def is_complete(self, steps: int) -> bool:
        """Whether there is nothing left to train up to a number of steps."""
        return self.stopped == "early" or (self.stopped == "finished" and self.steps >= steps)


class Trainer:
    """Trains one stage.

    Args:
        built: the model, on the mesh's device, with its first weights.
        wrapped: the same model, wrapped for its parallelism.
        readers: of the train split and of the held-out split, which is None if nothing is held out.
        work: for the MFU; counted from the model before it was wrapped.
    """

    def __init__(
        self,
        built: StageModel,
        wrapped: nn.Module,
        config: TrainConfig,
        settings: Stage,
        mesh: Mesh,
        readers: tuple[Reader[Any, Any], Reader[Any, Any] | None],
        folder: Path,
        log: StepLog,
        work: StepFlops | None = None,
    ) -> None:
        self._built, self._wrapped, self._config, self._settings = built, wrapped, config, settings
        self._mesh, self._folder, self._log, self._work = mesh, folder, log, work
        self._reader, self._held_out_reader = readers
        self._parameters = [p for p in wrapped.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(wrapped, settings, mesh.device)
        self._autocast, is_fp16 = precision(config.parallel.precision, mesh.device)
        self._loss_scale = LossScale(mesh.device, is_fp16)
        self._step = make_step(built, wrapped, config, mesh, self._autocast, self._loss_scale)

    def run(self, progress: Progress, resumed: Path | None) -> StageResult:
        """Train until the last step. SIGTERM or SIGINT saves a checkpoint and stops.

        Args:
            progress: where to begin.
            resumed: the checkpoint of that progress; None for a new run.

        Raises:
            DataError: a loss or gradient is not a number, fp16 gradients overflow at every step, or too many samples
                are unreadable.
        """
        if resumed is not None:
            restore(resumed, self._wrapped, self._optimizer)
            self._loss_scale.load(progress.loss_scale)
        self._limit_scale()
        begun, first_loss, last_loss = time.monotonic(), math.nan, math.nan
        settings = self._settings
        meter = Meter(self._built.stage, self._config, self._mesh, self._work)
        data, is_pinned = self._config.data, self._mesh.device.type == "cuda"
        ranks = (self._mesh.global_rank, self._mesh.world_size)
        watchdog = Watchdog(self._folder / "hang", *ranks, self._config.hang_s, data.workers)
        busy = watchdog.busy_workers if data.workers else None
        stream = batches(self._reader, progress.consumed, data.workers, data.prefetch, is_pinned, busy=busy)
        checkpoint = resumed
        stopped: Stopped = "finished"
        saver = CheckpointSaver(self._folder / "checkpoints", self._config.keep_checkpoints, progress.base)
        with _collected_signals() as signals, saver, closing(stream), watchdog:
            while progress.step < settings.steps and stopped == "finished":
                watchdog.beat(f"step {progress.step + 1}, waiting for data")
                batch = meter.time_wait(lambda: next(stream))
                watchdog.beat(f"step {progress.step + 1}, forward and backward pass")
                losses_and_norm = self.train_step(batch, progress.step)
                progress = replace(
                    progress,
                    step=progress.step + 1,
                    consumed=batch.consumed,
                    bad=progress.bad + batch.bad,
                    read=progress.read + batch.read,
                )
                meter.count(batch, losses_and_norm)
                watchdog.beat(f"step {progress.step}, waiting for the other ranks")
                if self._any_rank_must_stop(bool(signals) or saver.has_failed):
                    stopped = "signal"
                is_last = stopped == "signal" or progress.step == settings.steps
                if math.isnan(first_loss) or progress.step % settings.log_every == 0 or is_last:
                    line = meter.line(progress.step, settings.steps, learning_rate(settings, progress.step - 1))
                    last_loss = line["loss"]
                    first_loss = last_loss if math.isnan(first_loss) else first_loss
                    self._check(progress, line)
                    self._log.write({"kind": "train", **line})
                if progress.step % settings.validate_every == 0 or (is_last and stopped != "signal"):
                    watchdog.beat(f"step {progress.step}, validation")
                    progress = self._validated(progress)
                    if settings.early_stop is not None and progress.waited >= settings.early_stop.patience:
                        stopped, is_last = "early", True
                is_due = progress.step % settings.checkpoint_every == 0
                if is_due or is_last or progress.best_step == progress.step:
                    watchdog.beat(f"step {progress.step}, checkpoint")
                    progress = replace(progress, loss_scale=self._loss_scale.state())
                    checkpoint = saver.save(self._wrapped, self._optimizer, progress)
        assert checkpoint is not None
        if progress.best_step is not None:
            checkpoint = self._folder / "checkpoints" / step_name(progress.best_step)
        return StageResult(
            self._built.stage, self._folder, checkpoint, progress.step, progress.consumed, first_loss, last_loss,
            progress.metrics, stopped, time.monotonic() - begun,
        )  # fmt: skip

    def train_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Do one optimiser step. Dropout depends on the seed, the step and the rank only.

        Returns: This rank's share of each loss, and the norm of the whole gradient as `grad_norm`.
        Raises DataError: the gradient is not a number; the weights are unchanged.
        """
        train_mode(self._wrapped)
        torch.manual_seed(derived_seed(self._config.seed, 5, step, self._mesh.rank("dp")))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, step)
        losses = self._step(batch)
        scale = self._loss_scale.scale if self._loss_scale.enabled else None
        norm = clip_gradients(self._parameters, self._settings.grad_clip, self._mesh, scale)
        self._loss_scale.update(norm)
        if self._mesh.device.type != "cpu":  # without waiting for the device: fused AdamW makes no update if it is set
            self._optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif bool(norm.isfinite()):
            self._optimizer.step()
        elif not self._loss_scale.enabled:
            raise DataError(_not_a_number(step + 1))
        self._limit_scale()
        self._optimizer.zero_grad(set_to_none=True)
        return {**losses, "grad_norm": norm}

    def _limit_scale(self) -> None:
        if isinstance(self._built.model, DualEncoder):
            limit_scale(self._built.model, self._config.align)

    def _check(self, progress: Progress, line: dict[str, Any]) -> None:
        """End the run if it went wrong, and add the count of bad samples to its log line."""
        if not math.isfinite(line["loss"]) or (not self._loss_scale.enabled and not math.isfinite(line["grad_norm"])):
            raise DataError(_not_a_number(progress.step))
        skipped = int(self._loss_scale.skipped_in_a_row)
        if skipped >= min(MAX_SKIPPED_STEPS, self._settings.steps):
            raise DataError(
                f"step {progress.step}: the fp16 gradient overflowed at each of the last {skipped} steps, so that "
                f"none of them changed the weights; the loss scale is down to {float(self._loss_scale.scale):g}. "
                'Remedy: parallel.precision = "bf16" or "fp32", or a smaller lr.'
            )
        counts = torch.tensor([progress.bad, progress.read], dtype=torch.float64, device=self._mesh.device)
        bad, read = self._mesh.sum(counts).tolist()
        if read >= MIN_SAMPLES_READ and bad > read * self._config.data.max_bad_share:
            raise DataError(
                f"step {progress.step}: {int(bad)} of {int(read)} samples could not be read, more than "
                f"data.max_bad_share = {self._config.data.max_bad_share:g}. "
                "Remedy: run `mmdata verify --decode`, which names them."
            )
        line["bad_samples"] = int(bad)

    def _validated(self, progress: Progress) -> Progress:
        """The progress with the metrics of a validation, and what they mean for early stopping."""
        reader = self._held_out_reader
        if reader is None:
            return progress
        samples = min(self._settings.validate_samples, len(reader.source))
        data = self._config.data
        held_out = first_batches(reader, samples, self._mesh.device, data.workers, data.prefetch)
        metrics = validate(self._built, self._wrapped, held_out, self._config, self._mesh, self._autocast, self._step)
        self._log.write({"kind": "validation", "step": progress.step, **metrics})
        progress = replace(progress, metrics=metrics)
        early = self._settings.early_stop
        if early is None:
            return progress
        if early.metric not in metrics:
            raise DataError(
                f"early_stop.metric {early.metric!r} is not measured. Remedy: use one of {', '.join(metrics)}."
            )
        value, sign = metrics[early.metric], 1 if early.mode == "max" else -1
        if progress.best is None or sign * (value - progress.best) > early.min_delta:
            return replace(progress, best=value, best_step=progress.step, waited=0)
        return replace(progress, waited=progress.waited + 1)

    def _any_rank_must_stop(self, this_rank: bool) -> bool:
        """Whether any rank must stop. All ranks stop at the same step. Args: this_rank: whether this one must."""
        return self._mesh.sum_on_host(float(this_rank)) > 0


def learning_rate(settings: Stage, step: int) -> float:
    """Linear warm-up, then constant or a cosine down to `min_lr_ratio` of the peak. Steps count from 0."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    low = settings.min_lr_ratio
    return settings.lr * (low + (1 - low) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def make_optimizer(model: nn.Module, settings: Stage, device: torch.device) -> torch.optim.AdamW:
    """AdamW for the parameters that are trained, with weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, settings.lr, (0.9, settings.beta2), fused=device.type == "cuda")


def precision(name: str, device: torch.device) -> tuple[Callable[[], Any], bool]:
    """A function that makes autocast contexts, and whether gradients need scaling (fp16)."""
    dtype = compute_dtype(name, device)
    if dtype == torch.float32:
        return nullcontext, False
    return lambda: torch.autocast(device.type, dtype), dtype == torch.float16


def _not_a_number(step: int) -> str:
    return (
        f"step {step}: the loss or its gradient is not a number; the weights were not updated with it. "
        'Remedy: a smaller lr, a longer warm-up, or parallel.precision = "bf16" instead of "fp16".'
    )


@contextmanager
def _collected_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT, which then do not end the process; a second signal that is SIGINT does."""
    signals: list[int] = []

    def collect(number: int, _frame: Any) -> None:
        if signals and number == signal.SIGINT:
            raise KeyboardInterrupt
        signals.append(number)

    try:
        previous = {number: signal.signal(number, collect) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # only the main thread can handle signals
        previous = {}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
