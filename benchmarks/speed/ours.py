"""Our side: `training.run.train` as it is, its speed as its own step lines say."""

from __future__ import annotations

import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.speed.sizes import Size, Speed


def measure_ours(workspace: str, stage: str, size: Size, out: str) -> float:
    """Train a stage for warm + steps steps and write its Speed; made for a process of its own."""
    from training.run import train

    lines: list[tuple[float, dict[str, Any]]] = []
    folder = Path(tempfile.mkdtemp(prefix="mmdata-speed-"))
    try:
        train(
            workspace,
            [stage],  # type: ignore[list-item]
            our_config(size),
            folder,
            on_line=lambda line: lines.append((time.monotonic(), line)),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    speed = speed_of([(at, line) for at, line in lines if line["kind"] == "train" and line["step"] >= size.warm])
    speed.write(out)
    return speed.work


def speed_of(lines: list[tuple[float, dict[str, Any]]]) -> Speed:
    """The speed over a training log's lines, each with the time at which it came; the clock starts at the first."""
    work = padded = flops = wait = 0.0
    for (before, _), (at, line) in pairwise(lines):
        elapsed = at - before
        work += line.get("tokens_per_s", line["samples_per_s"]) * elapsed
        padded += line.get("padded_tokens_per_s", 0.0) * elapsed
        flops += (line["mfu"] or 0.0) * elapsed
        wait += line["data_wait"] * elapsed
    seconds = lines[-1][0] - lines[0][0]
    return Speed(work, seconds, padded, flops / seconds if lines[-1][1]["mfu"] else None, wait / seconds)


def our_config(size: Size) -> Any:
    """The training configuration of a size: no validation, no checkpoint but the last, everything else as it comes."""
    from training.config import TrainConfig

    never = 1_000_000
    common: dict[str, Any] = {
        "steps": size.warm + size.steps,
        "batch_size": size.batch,
        "log_every": size.warm,
        "validate_every": never,
        "checkpoint_every": never,
    }
    encoder = {"model": size.model} if size.clip is None else {"config": size.clip}
    return TrainConfig.model_validate(
        {
            "device": size.device,
            "model": {"encoder": encoder, "llm": {"kind": "config", "tokenizer": "bytes", "config": size.llm}},
            "align": common,
            "joint": {**common, "pack_length": size.pack_length},
            "parallel": {"compile": size.compile},
            "data": {"workers": size.workers},
            "log": {"peak_tflops": size.peak_tflops},
        }
    )
