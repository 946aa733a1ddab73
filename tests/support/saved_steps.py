"""Checkpoints of a tiny model at chosen steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from training.checkpoint.checkpoints import Progress
from training.checkpoint.saver import save

PROGRESS = Progress("align", 0, 0, "release-1", "digest-1", {"seed": 3})


def save_steps(folder: Path, *steps: int, best: int | None = None, keep: int = 2) -> None:
    for step in steps:
        best_step = best if best is not None and best <= step else None
        save(folder, nn.Linear(3, 2), None, replace(PROGRESS, step=step, best_step=best_step), keep)
