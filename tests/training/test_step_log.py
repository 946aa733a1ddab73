"""The step line: what it adds up, where it is written, and that a killed run's log goes on."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_run import alone, built_stage, first_batch, settings
from training.config import Log
from training.data.batch_types import PairBatch, PlacedMedia, RowBatch
from training.stages.step_flops import StepFlops
from training.step_log import Meter, StepLog, read_log

LINE = {"kind": "train", "step": 3, "loss": 0.5, "lr": 1e-3, "mfu": None}


def test_lines_go_to_a_file_and_to_whoever_listens(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    log = StepLog(tmp_path / "align", Log(), True, heard.append)
    log.write(LINE)
    assert read_log(tmp_path / "align") == heard == [LINE], "written at once: a kill loses nothing"
    log.write({**LINE, "step": 4})
    StepLog(tmp_path / "align", Log(), True).write({**LINE, "step": 5})
    assert [line["step"] for line in read_log(tmp_path / "align")] == [3, 4, 5]
    assert (tmp_path / "align" / "log.jsonl").read_text().count("\n") == 3


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    StepLog(tmp_path / "align", Log(), False, pytest.fail).write(LINE)
    assert not (tmp_path / "align").exists()
    assert read_log(tmp_path / "align") == []


@pytest.mark.parametrize("torn", ['{"kind": "train", "ste', '{"kind": "train", "step": 4}', "\n", ""])
def test_a_line_torn_by_a_kill_does_not_take_the_next_with_it(tmp_path: Path, torn: str) -> None:
    StepLog(tmp_path, Log(), True).write(LINE)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(torn)
    log = StepLog(tmp_path, Log(), True)
    log.write({**LINE, "step": 5})
    log.write({**LINE, "step": 6})
    assert [line["step"] for line in read_log(tmp_path) if line["step"] != 4] == [3, 5, 6]


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = StepLog(tmp_path, Log(tensorboard=True), True)
    for step in (1, 2):
        log.write({**LINE, "step": step, "loss": 1.0 / step})
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "lr"}
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = StepLog(tmp_path, Log(wandb="mmdata-tests"), True)
    log.write(LINE)
    log.write({**LINE, "step": 4, "loss": 0.8125})
    wandb.finish()
    kept = next(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    until = time.monotonic() + 20
    while b"0.8125" not in kept.read_bytes():  # its own process writes it
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("module", "config"), [("torch.utils.tensorboard", Log(tensorboard=True)), ("wandb", Log(wandb="project"))]
)
def test_a_package_that_is_absent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, config: Log
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"needs the package `{module.rpartition('.')[2]}`"):
        StepLog(tmp_path, config, True)


NONE = torch.empty(0, dtype=torch.long)


def batch_of(rows: int, tokens: int, length: int = 8) -> RowBatch:
    """Rows of zeros, some of whose columns belong to a sample."""
    zeros, segment = (torch.zeros(rows, length, dtype=torch.long) for _ in range(2))
    segment.view(-1)[:tokens] = 1
    no_media = PlacedMedia(None, NONE, NONE, NONE)
    return RowBatch(zeros, zeros, zeros, segment, no_media, no_media, [], read=5, bad=0, cut_tokens=2)


def test_a_line_holds_means_of_losses_and_rates_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    meter = Meter("joint", settings(joint={"kl_weight": 0.5}), alone())

    def read() -> str:
        clock[0] += 1.0
        return "batch"

    for step in (1, 2):
        assert meter.time_wait(read) == "batch"
        clock[0] += 3.0
        shares = {"text": torch.tensor(2.0 * step), "kl": torch.tensor(0.1), "grad_norm": torch.tensor(1.0 * step)}
        meter.count(batch_of(2, 10), shares)
    line = meter.line(2, 12, 0.25)
    assert line["loss/text"] == pytest.approx(3.0)
    assert line["loss/kl"] == pytest.approx(0.1)
    assert line["loss"] == pytest.approx(3.0 + 0.5 * 0.1)
    assert line["grad_norm"] == pytest.approx(1.5)
    assert line["lr"] == 0.25
    assert line["samples_per_s"] == pytest.approx(10 / 8)
    assert line["tokens_per_s"] == pytest.approx(20 / 8)
    assert line["padded_tokens_per_s"] == pytest.approx(32 / 8)
    assert line["cut_tokens"] == 4
    assert line["data_wait"] == pytest.approx(2 / 8)
    assert line["eta_s"] == pytest.approx(10 * 4)
    assert line["mfu"] is None
    assert 0.01 < line["peak_gib"] < 100
    assert line["step"] == 2
    json.dumps(line)

    clock[0] += 2.0
    meter.count(batch_of(1, 4), {"text": torch.tensor(7.0), "grad_norm": torch.tensor(9.0)})
    again = meter.line(3, 12, 0.25)
    assert again["loss"] == pytest.approx(7.0), "nothing is left of the steps before"
    assert (again["grad_norm"], again["cut_tokens"], again["data_wait"]) == (9.0, 2, 0.0)
    assert again["tokens_per_s"] == pytest.approx(2.0)
    assert again["eta_s"] == pytest.approx(9 * 2)


def test_the_losses_of_stage_one_are_weighted_as_in_its_gradient() -> None:
    meter = Meter("joint", settings(align={"weights": {"image": 2.0, "audio": 0.5}, "masked_weight": 0.1}), alone())
    shares = {"image": 1.0, "audio": 4.0, "masked": 10.0, "grad_norm": 1.0}
    pairs = PairBatch(NONE, NONE, NONE, NONE, None, NONE, None, NONE, [], read=3, bad=0, consumed=3)
    meter.count(pairs, {name: torch.tensor(value) for name, value in shares.items()})
    line = meter.line(1, 1, 0.0)
    assert line["loss"] == pytest.approx(2.0 + 2.0 + 1.0)
    assert "tokens_per_s" not in line


def test_mfu_is_work_over_what_the_device_could_do(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    config = settings(log={"peak_tflops": 1e-3})
    built = built_stage("joint", config)
    batch = first_batch(built, config, pictures, tmp_path)
    work = StepFlops(built, config)
    meter = Meter("joint", config, alone(), work)
    for _ in range(2):
        clock[0] += 0.5
        meter.count(batch, {"text": torch.tensor(1.0), "grad_norm": torch.tensor(1.0)})
    assert meter.line(2, 2, 0.0)["mfu"] == pytest.approx(2 * float(work.of(batch)) / 1.0 / 1e9)


def test_read_log_has_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []
