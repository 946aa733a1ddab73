"""`steps=N`, `pause=SECONDS` a step, `fail=data|user|killed_once|broken_once|nan|rise`, `fail_rank=R`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def load_train_config(preset: str | None = None, path: str | None = None, overrides: list[str] | None = None) -> Any:
    said = dict(pair.split("=", 1) for pair in overrides or [])
    stage = SimpleNamespace(steps=int(said.get("steps", 20)))
    return SimpleNamespace(
        preset=preset,
        path=path,
        align=stage,
        joint=stage,
        instruct=stage,
        pause=float(said.get("pause", 0)),
        fail=said.get("fail"),
        data=SimpleNamespace(sources=[]),
        fail_rank=int(said.get("fail_rank", 0)),
    )
