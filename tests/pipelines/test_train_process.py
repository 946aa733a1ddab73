"""The child of a training asset: its request, and how much it writes into the log of the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import train_process
from pipelines.train_process import Request


def test_a_request_survives_its_way_through_json() -> None:
    request = Request("train", ("align", "joint"), "releases/r", "out", preset="tiny", overrides=("align.steps=3",))
    assert Request.from_json(request.to_json()) == request


def test_a_long_training_writes_ever_fewer_steps_and_every_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(train_process, "time", SimpleNamespace(monotonic=lambda: now_s))
    lines: list[str] = []
    pipes: Any = type("Pipes", (), {"log": type("Log", (), {"info": staticmethod(lines.append)})})
    report_line = train_process._line_reporter(pipes, "align", steps=36_000)
    for step in range(1, 36_001):  # ten steps a second for an hour
        now_s = step / 10
        report_line({"kind": "train", "step": step, "loss": 2.0})
        if step % 6000 == 0:
            report_line({"kind": "validation", "step": step, "val/loss": 2.0})
    validations = [line for line in lines if "validation" in line]
    assert len(validations) == 6
    assert 300 < len(lines) - len(validations) < 600
    assert "step 36,000" in lines[-2], "the last step is always written"
