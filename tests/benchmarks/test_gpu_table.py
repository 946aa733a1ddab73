"""The GPU table: a row that fails is printed and the rest goes on; the time is bounded; goals stand beside figures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import training
from benchmarks.speed import gpu_table
from benchmarks.speed.gpu_table import Outcome, cells, run_table, run_task
from benchmarks.speed.gpu_tasks import Task, tasks
from benchmarks.speed.sizes import Speed


def named(wanted: str, device: str = "cpu", gpus: int = 0) -> Task:
    return next(task for task in tasks(device, device == "cpu", 1, gpus) if wanted in task.name)


@pytest.mark.slow
def test_a_row_that_fails_is_named_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = named("KL term")
    refused = replace(runs, name="refused", settings={"joint.kl_weight": -1})
    slow = replace(runs, name="slow", limit_s=0.2)
    absent = replace(runs, name="absent", missing="not run: there is one GPU")
    monkeypatch.setattr(gpu_table, "tasks", lambda *_: [refused, slow, absent, runs])
    assert run_table("cpu", True, tmp_path / "rows.json") == 1
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["is_failure"] for row in rows] == [True, True, False, False]
    assert rows[0]["reason"].startswith("failed: pydantic_core._pydantic_core.ValidationError")
    assert rows[1]["reason"] == "ended after 0 s"
    assert rows[3]["speed"]["work"] == runs.size.warm + runs.size.steps
    table = capsys.readouterr().out
    assert "| absent | smoke | not run: there is one GPU |" in table
    assert "| KL term | smoke | ran 3 steps |" in table


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_table_runs_in_small_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_table, "BUDGET_S", 850.0)
    monkeypatch.setattr(sys, "argv", ["training", "--gpu", "--device", "cpu", "--tiny"])
    assert training.main() == 0
    table = capsys.readouterr().out
    for row in ("ours", "open_clip", "Trainer", "FSDP2 on 1", "pipeline on 2", "KL term", "attention eager"):
        assert row in table


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["training", "--gpu"])
    assert training.main() == 2
    assert "there is no GPU here. Remedy" in capsys.readouterr().err


def test_nothing_is_begun_when_the_time_is_used_up(tmp_path: Path) -> None:
    outcome = run_task(named("KL term"), tmp_path, left_s=5.0)
    assert outcome.reason == "not run: the 580 s are used up"
    assert list(tmp_path.iterdir()) == []


def test_one_gpu_shards_alone_and_has_no_pipeline() -> None:
    assert named("FSDP2", "cuda", 1).processes == 1
    assert "one process a GPU" in (named("pipeline", "cuda", 1).missing or "")
    assert (named("FSDP2", "cuda", 2).processes, named("pipeline", "cuda", 2).missing) == (2, None)


def test_goals_stand_beside_our_figures_and_a_peers_mfu_follows_from_ours() -> None:
    ours = Outcome("align ViT-B/32, 2048 a step", "ours", 30.0, Speed(8000.0, 1.0, mfu=0.44, data_wait=0.08))
    peer = Outcome(ours.name, "open_clip", 30.0, Speed(4000.0, 1.0, data_wait=0.01))
    joint = Outcome("joint 0.5B, 512 samples a step", "ours", 30.0, Speed(95_000.0, 1.0, mfu=0.3, data_wait=0.01))
    rows: list[Any] = [cells(outcome, [ours, peer, joint]) for outcome in (ours, peer, joint)]
    assert rows[0][2:6] == ["8,000 samples/s", "44.0%", "8.0%", "MFU 40%: met; wait under 5%: missed"]
    assert rows[1][2:6] == ["4,000 samples/s", "22.0%", "1.0%", ""]
    assert rows[2][2:6] == ["95,000 tokens/s", "30.0%", "1.0%", "90,000 tokens/s: met; wait under 5%: met"]
