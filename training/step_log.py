"""One line a logging step: loss, rate, speed, MFU, data wait, memory, time left. JSONL always; others on request."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmdata.errors import UserError
from training.config import Log, TrainConfig
from training.data.batch_types import Batch, PairBatch, RowBatch
from training.data.text_codec import IGNORED
from training.distributed.process_mesh import Mesh

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "B200": 2250.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "A10": 125.0}
"""Dense bf16, as the makers state them; the H100's is the SXM module's."""

Result = TypeVar("Result")
OnLine = Callable[[dict[str, Any]], None]


class StepLog:
    """Writes lines to `log.jsonl`, and where else the configuration says; on the main process only.

    Raises:
        UserError: a package that the configuration asks for is absent.
    """

    def __init__(self, folder: Path, config: Log, is_main: bool, on_line: OnLine | None = None) -> None:
        self._sinks: list[OnLine] = []
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        _end_line(folder / "log.jsonl")
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8", buffering=1)
        self._sinks.append(lambda line: print(json.dumps(line), file=self._file))
        if on_line is not None:
            self._sinks.append(on_line)
        if config.tensorboard:
            self._sinks.append(_tensorboard(folder))
        if config.wandb is not None:
            self._sinks.append(_wandb(config.wandb, folder))

    def write(self, line: dict[str, Any]) -> None:
        """Hand a line to every sink."""
        for sink in self._sinks:
            sink(line)


class Meter:
    """Counts between logging steps; nothing waits for the device until a line is asked for."""

    def __init__(self, built: Any, config: TrainConfig, mesh: Mesh) -> None:
        self._mesh = mesh
        self._weights = {**config.align.weights, "text": 1.0, "masked": config.align.masked_weight}
        stage = config.instruct if built.stage == "instruct" else config.joint
        self._weights["kl"] = stage.kl_weight
        peak = config.log.peak_tflops or _peak_tflops(mesh.device)
        self._peak = None if peak is None else peak * 1e12
        self._flops = _Flops(built, mesh.device) if self._peak is not None else None
        self._reset()

    def _reset(self) -> None:
        self._begun, self._wait, self._steps = time.monotonic(), 0.0, 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = dict.fromkeys(("samples", "tokens", "padded", "cut"), 0)
        self._work = 0.0

    def waited(self, read: Callable[[], Result]) -> Result:
        """Time the wait for data."""
        begun = time.monotonic()
        found = read()
        self._wait += time.monotonic() - begun
        return found

    def count(self, batch: Batch, shares: dict[str, Tensor]) -> None:
        """Note a step's losses and sizes."""
        self._steps += 1
        for name, share in shares.items():
            self._sums[name] = self._sums[name] + share if name in self._sums else share.clone()
        self._counts["samples"] += batch.read
        if isinstance(batch, RowBatch):
            self._counts["cut"] += batch.cut_tokens
            self._counts["padded"] += batch.segment.numel()
            self._counts["tokens"] += int((batch.segment > 0).sum()) if self._mesh.device.type == "cpu" else 0
            if self._mesh.device.type != "cpu":
                real = (batch.segment > 0).sum()
                self._sums["_tokens"] = self._sums["_tokens"] + real if "_tokens" in self._sums else real
        if self._flops is not None:
            self._work += self._flops.of(batch)

    def line(self, step: int, steps: int, lr: float) -> dict[str, Any]:
        """What a step line holds; sums over ranks, means over the steps since the last line."""
        names = sorted(self._sums)
        values = torch.stack([self._sums[name].double() for name in names])
        counts = torch.tensor([*map(float, self._counts.values()), self._work], dtype=torch.float64)
        counts = counts.to(self._mesh.device)
        grad = names.index("grad_norm")
        norm = values[grad].clone()
        found = dict(zip(names, (self._mesh.sum(values) / self._steps).tolist(), strict=True))
        samples, tokens, padded, cut, work = self._mesh.sum(counts).tolist()
        tokens += found.pop("_tokens", 0.0) * self._steps
        found["grad_norm"] = float(norm) / self._steps
        elapsed = max(time.monotonic() - self._begun, 1e-9)
        losses = {name: value for name, value in found.items() if name != "grad_norm"}
        line: dict[str, Any] = {"step": step, "loss": sum(self._weights[name] * losses[name] for name in losses)}
        line |= {f"loss/{name}": value for name, value in losses.items()}
        line |= {"lr": lr, "grad_norm": found["grad_norm"], "samples_per_s": samples / elapsed}
        if padded:
            line |= {"tokens_per_s": tokens / elapsed, "padded_tokens_per_s": padded / elapsed, "cut_tokens": int(cut)}
        world = max(1, self._mesh.size("dp") * self._mesh.size("tp") * self._mesh.size("pp"))
        mfu = work / elapsed / (self._peak * world) if self._peak is not None else None
        line |= {"mfu": mfu, "data_wait": self._wait / elapsed, "peak_gib": _peak_gib(self._mesh.device)}
        line["eta_s"] = (steps - step) * elapsed / self._steps
        self._reset()
        return line


class _Flops:
    """Floating-point operations of a step: each part's forward pass is measured once.

    As much again for gradients that pass through it, and again for those of its own weights where most are trained.
    Recomputed activations are not counted: this is model FLOPs, not hardware FLOPs.
    """

    def __init__(self, built: Any, device: torch.device) -> None:
        self._built, self._device = built, device
        self._costs: dict[Any, float] = {}

    def of(self, batch: Batch) -> float:
        model = self._built.model
        pictures = len(batch.picture_of if isinstance(batch, PairBatch) else batch.picture.row)
        total = pictures * self._cost("vision", lambda: model.vision.maps(self._picture()), model.vision)
        if isinstance(batch, PairBatch):
            tokens = batch.text[:1]
            return total + len(batch.text) * self._cost("text", lambda: model.text(tokens), model.text)
        length = batch.input_ids.shape[1]
        embeds = torch.zeros(1, length, model.dim, device=self._device)
        row = self._cost(length, lambda: model.llm.base_model(inputs_embeds=embeds, use_cache=False), model.llm)
        head = 2.0 * model.dim * model.llm.config.get_text_config().vocab_size * _passes(model.llm)
        learned = int((batch.labels != IGNORED).sum()) if self._device.type == "cpu" else batch.labels.numel() / 2
        return total + len(batch.input_ids) * row + learned * head

    def _cost(self, key: Any, forward: Callable[[], Any], part: Any) -> float:
        if key not in self._costs:
            mode = FlopCounterMode(display=False)
            with mode, torch.no_grad():
                forward()
            self._costs[key] = float(mode.get_total_flops()) * _passes(part)
        return self._costs[key]

    def _picture(self) -> Tensor:
        return torch.zeros(1, 3, *self._built.model.vision.preprocess.size, device=self._device)


def _passes(part: Any) -> int:
    """1: forward only; 2: gradients pass through; 3: and its weights learn."""
    weights = dict(part.named_parameters())
    trained = {name: weight.numel() for name, weight in weights.items() if weight.requires_grad}
    if sum(trained.values()) > sum(weight.numel() for weight in weights.values()) / 2:
        return 3
    if not hasattr(part, "head_names"):  # the language model: a connector or adapters below it learn
        return 2
    return 1 if all(name.startswith(part.head_names()) for name in trained) else 2


def _end_line(path: Path) -> None:
    """End the line that a killed process left torn, or the next one would be lost with it."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's log, a torn last one aside."""
    lines = []
    if (folder / "log.jsonl").exists():
        for text in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines


def _peak_tflops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_TFLOPS.items() if key in name), None)


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _tensorboard(folder: Path) -> OnLine:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("log.tensorboard needs the package `tensorboard`") from None
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
        raise UserError("log.wandb needs the package `wandb`") from None
    run = wandb.init(project=project, dir=str(folder), name=folder.name, resume="allow")
    return lambda line: run.log({k: v for k, v in line.items() if isinstance(v, int | float)}, step=line["step"])
