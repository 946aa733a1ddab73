"""The training log: one line per logging step, with losses, learning rate, speed, MFU, data wait, memory, time left.

Lines are written as JSONL, and on request to TensorBoard and Weights & Biases.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmdata.errors import UserError
from training.config import Log, StageName, TrainConfig
from training.data.batch_types import Batch, RowBatch
from training.distributed.process_mesh import Mesh
from training.stages.stage_model import generative_settings
from training.stages.step_flops import StepFlops

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "B200": 2250.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "A10": 125.0}
"""Dense bf16 by GPU name, as the makers state them; that of the H100 is for the SXM module."""

Result = TypeVar("Result")
OnLine = Callable[[dict[str, Any]], None]


class StepLog:
    """Writes lines to `log.jsonl` and to the other places in the configuration, on the main process only.

    Raises UserError: a package that the configuration needs is not installed.
    """

    def __init__(self, folder: Path, config: Log, is_main: bool, on_line: OnLine | None = None) -> None:
        self._sinks: list[OnLine] = []
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        _end_torn_line(folder / "log.jsonl")
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8", buffering=1)
        self._sinks.append(lambda line: print(json.dumps(line), file=self._file))
        if on_line is not None:
            self._sinks.append(on_line)
        if config.tensorboard:
            self._sinks.append(_tensorboard(folder))
        if config.wandb is not None:
            self._sinks.append(_wandb(config.wandb, folder))

    def write(self, line: dict[str, Any]) -> None:
        """Write a line everywhere."""
        for sink in self._sinks:
            sink(line)


class Meter:
    """Measures the steps since the last log line. It waits for the device only when it makes a line.

    Args: work: counts the operations of a step for the MFU; without it, or a known peak of the device, there is none.
    """

    def __init__(self, stage: StageName, config: TrainConfig, mesh: Mesh, work: StepFlops | None = None) -> None:
        self._mesh, self._work = mesh, work
        kl_weight = generative_settings(stage, config).kl_weight
        self._loss_weights = {**config.align.loss_weights, "text": 1.0, "kl": kl_weight}
        self._peak_flops = peak_flops(config.log, mesh.device)
        self._reset()

    def _reset(self) -> None:
        self._begun, self._waited_s, self._steps = time.monotonic(), 0.0, 0
        self._sums: dict[str, Tensor] = {}  # on the device
        self._samples, self._row_tokens, self._cut_tokens, self._tokens, self._flops = 0, 0, 0, 0, 0.0

    def time_wait(self, read: Callable[[], Result]) -> Result:
        """Read something, and count the time as a wait for data."""
        begun = time.monotonic()
        result = read()
        self._waited_s += time.monotonic() - begun
        return result

    def count(self, batch: Batch, losses_and_norm: dict[str, Tensor]) -> None:
        """Add a step: its batch, on the CPU, so that counting it waits for nothing; this rank's losses; `grad_norm`."""
        self._steps += 1
        for name, value in losses_and_norm.items():
            self._add(name, value)
        self._samples += batch.read
        if isinstance(batch, RowBatch):
            self._cut_tokens += batch.cut_tokens
            self._row_tokens += batch.segment.numel()
            self._tokens += int((batch.segment > 0).sum())
        if self._work is not None:
            self._flops += float(self._work.of(batch))

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()

    def line(self, step: int, steps: int, lr: float) -> dict[str, Any]:
        """The log line of a step: sums over ranks, and means over the steps since the last line."""
        names = sorted(self._sums)
        local = torch.stack([self._sums[name].double() for name in names])
        grad_norm = float(local[names.index("grad_norm")]) / self._steps  # of the whole gradient on every rank: no sum
        counts = [self._samples, self._row_tokens, self._cut_tokens, self._tokens, self._flops]
        on_device = torch.tensor(counts, dtype=torch.float64, device=self._mesh.device)
        samples, row_tokens, cut_tokens, tokens, flops = self._mesh.sum(on_device).tolist()
        means = dict(zip(names, (self._mesh.sum(local) / self._steps).tolist(), strict=True))
        del means["grad_norm"]
        elapsed_s = max(time.monotonic() - self._begun, 1e-9)
        line: dict[str, Any] = {"step": step, "loss": sum(self._loss_weights[name] * means[name] for name in means)}
        line |= {f"loss/{name}": value for name, value in means.items()}
        line |= {"lr": lr, "grad_norm": grad_norm, "samples_per_s": samples / elapsed_s}
        if row_tokens:
            line |= {
                "tokens_per_s": tokens / elapsed_s,
                "padded_tokens_per_s": row_tokens / elapsed_s,
                "cut_tokens": int(cut_tokens),
            }
        devices = self._mesh.size("dp") * self._mesh.size("tp") * self._mesh.size("pp")
        mfu = flops / elapsed_s / (self._peak_flops * devices) if flops and self._peak_flops else None
        line |= {"mfu": mfu, "data_wait": self._waited_s / elapsed_s, "peak_gib": _peak_gib(self._mesh.device)}
        line["eta_s"] = (steps - step) * elapsed_s / self._steps
        self._reset()
        return line


def _end_torn_line(path: Path) -> None:
    """End the incomplete line that a killed process left, so that the next line does not continue it."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's log, without those that a killed process left incomplete."""
    lines = []
    if (folder / "log.jsonl").exists():
        for text in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines


def peak_flops(config: Log, device: torch.device) -> float | None:
    """Operations a second that the device can do at most; None if that is not known."""
    if config.peak_tflops is not None:
        return config.peak_tflops * 1e12
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak * 1e12 for key, peak in PEAK_TFLOPS.items() if key in name), None)


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _tensorboard(folder: Path) -> OnLine:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("log.tensorboard needs the package `tensorboard`. Remedy: pip install tensorboard.") from None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def write(line: dict[str, Any]) -> None:
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                writer.add_scalar(name, value, line["step"])
        writer.flush()

    return write


def _wandb(project: str, folder: Path) -> OnLine:
    try:
        import wandb
    except ImportError:
        raise UserError("log.wandb needs the package `wandb`. Remedy: pip install wandb.") from None
    run = wandb.init(project=project, dir=str(folder), name=folder.name, resume="allow")
    return lambda line: run.log({k: v for k, v in line.items() if isinstance(v, int | float)}, step=line["step"])
