"""`train`: counts steps, writes what the real one writes, and stops at SIGTERM with a checkpoint."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdata.errors import DataError, UserError
from mmdata.releases.manifest import open_release


@dataclass(frozen=True, slots=True)
class StageResult:
    stage: str
    folder: Path
    checkpoint: Path
    steps: int
    samples: int
    first_loss: float
    last_loss: float
    metrics: dict[str, float]
    stopped: str
    seconds: float


def train(
    sources: str | Sequence[str],
    stages: Sequence[str],
    config: Any,
    output: Path,
    *,
    on_line: Callable[[dict[str, Any]], None] | None = None,
) -> list[StageResult]:
    opened = open_release(sources if isinstance(sources, str) else sources[0])
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stop.append(number))
    rank = int(os.environ.get("RANK", "0"))
    if rank == config.fail_rank:
        _fail(config.fail, output)
    results = []
    for stage in stages:
        folder = output / stage
        if rank == 0:
            results.append(_stage(stage, folder, opened, config, stop, on_line))
    return results


def _stage(stage: str, folder: Path, opened: Any, config: Any, stop: list[int], on_line: Any) -> StageResult:
    if (folder / "result.json").exists():
        values = json.loads((folder / "result.json").read_text())
        checkpoint = folder / "checkpoints" / values["checkpoint"]
        if values["stopped"] == "finished":
            return StageResult(**{**values, "folder": folder, "checkpoint": checkpoint})
    steps = getattr(config, stage).steps
    folder.mkdir(parents=True, exist_ok=True)
    done = len((folder / "log.jsonl").read_text().splitlines()) if (folder / "log.jsonl").exists() else 0
    with (folder / "log.jsonl").open("a") as log:
        for step in range(done + 1, steps + 1):
            if stop:
                break
            time.sleep(config.pause)
            slope = 1 if config.fail == "rise" else -1
            loss = math.nan if config.fail == "nan" and step == 7 else 4 + slope * step / 10
            line = {"kind": "train", "step": step, "loss": loss, "samples_per_s": 100.0, "data_wait": 0.01, "mfu": None}
            log.write(json.dumps(line) + "\n")
            log.flush()
            done = step
            if on_line:
                on_line(line)
        if on_line and not stop:
            on_line({"kind": "validation", "step": done, "val/loss": 1.5, "val/recall@1": 0.5, "val/a/chance@1": 0.1})
    checkpoint = folder / "checkpoints" / f"step-{done:08d}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    meta = {"release_id": opened.id, "release_digest": opened.manifest["digest"]}
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    stopped = "signal" if stop else "finished"
    last = math.nan if config.fail == "nan" else 4 + (1 if config.fail == "rise" else -1) * done / 10
    metrics = {"val/loss": last, "val/recall@1": 0.5}
    result = StageResult(stage, folder, checkpoint, done, 8 * done, 3.9, last, metrics, stopped, 1.0)
    if not stop and stage == "align":
        (folder / "scorer").mkdir()
    saved = {**asdict(result), "folder": str(folder), "checkpoint": checkpoint.name}
    (folder / "result.json").write_text(json.dumps(saved))
    return result


def _fail(how: str | None, output: Path) -> None:
    if how == "data":
        raise DataError("shard 000.tar is truncated")
    if how == "user":
        raise UserError("no preset 'huge'")
    if how in ("killed_once", "broken_once") and not (output / "failed").exists():
        output.mkdir(parents=True, exist_ok=True)
        (output / "failed").touch()
        if how == "broken_once":
            raise RuntimeError("no device")
        os.kill(os.getpid(), signal.SIGKILL)
