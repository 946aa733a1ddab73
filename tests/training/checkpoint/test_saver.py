"""Checkpoints are written while training goes on: whole or not at all, one after the other, and older ones go."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict_saver

from mmdata.errors import DataError
from tests.support.saved_steps import PROGRESS, save_steps
from tests.support.small_disk import small_disk
from training.checkpoint import saver as saver_module
from training.checkpoint.checkpoints import (
    latest_checkpoint,
    list_checkpoints,
    load_weights,
    read_progress,
    restore,
)
from training.checkpoint.saver import CheckpointSaver, save


def test_old_checkpoints_go_and_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2, 3, 4, 5, best=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000004", "step-00000005"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in list_checkpoints(tmp_path)]


@pytest.mark.parametrize("moment", ["while the tensors are written", "before the rename"])
def test_a_process_killed_while_it_saves_leaves_the_older_checkpoint(tmp_path: Path, moment: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    write = state_dict_saver.save

    def tear_and_die(*args: Any, **options: Any) -> None:
        write(*args, **options)
        for path in Path(options["checkpoint_id"]).iterdir():
            path.write_bytes(path.read_bytes()[:100])
        die()

    def save_and_die() -> None:
        if moment == "before the rename":
            saver_module.sync = die
        else:
            state_dict_saver.save = tear_and_die
        save_steps(tmp_path, 2)

    save_steps(tmp_path, 1)
    process = multiprocessing.get_context("fork").Process(target=save_and_die)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp-")] == [".tmp-step-00000002"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert read_progress(newest).step == 1
    assert load_weights(newest, nn.Linear(3, 2), lambda _: True) == []
    save_steps(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_full_disk_is_named_with_its_remedy_and_the_older_checkpoint_stays(tmp_path: Path) -> None:
    """torch raises a BaseException that hides the cause among the failures of its ranks."""
    folder = tmp_path / "disk"
    with small_disk(folder, 300):
        save(folder, nn.Linear(100, 100), None, replace(PROGRESS, step=1), keep=1)
        with pytest.raises(DataError, match=r"step-00000002: .* No space left on device\. Remedy: free space"):
            save(folder, nn.Linear(300, 300), None, replace(PROGRESS, step=2), keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-00000001"]
        assert load_weights(folder / "step-00000001", nn.Linear(100, 100), lambda _: True) == []


class SlowDisk:
    """Stands for torch's writer: it waits until it may write, and notes what is published when it begins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_write = threading.Event()
        self.published_before: list[list[str]] = []
        self._folder, self._write = folder, state_dict_saver.save
        monkeypatch.setattr(state_dict_saver, "save", self.save)

    def save(self, *args: Any, **options: Any) -> Any:
        self.published_before.append([path.name for path in list_checkpoints(self._folder)])
        assert self.may_write.wait(60)
        return self._write(*args, **options)


def test_training_goes_on_while_the_weights_of_then_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, model = SlowDisk(tmp_path, monkeypatch), nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    weight, moment = model.weight.detach().clone(), optimizer.state[model.weight]["exp_avg"].clone()
    with CheckpointSaver(tmp_path, keep=1) as saver:
        final = saver.save(model, optimizer, replace(PROGRESS, step=1))
        optimizer.step()  # in place, while nothing is written yet
        assert list_checkpoints(tmp_path) == []
        disk.may_write.set()
    assert not torch.equal(model.weight, weight)
    restore(final, model, optimizer)
    assert torch.equal(model.weight, weight)
    assert torch.equal(optimizer.state[model.weight]["exp_avg"], moment)


def test_a_save_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, model = SlowDisk(tmp_path, monkeypatch), nn.Linear(3, 2)
    with CheckpointSaver(tmp_path, keep=2) as saver:
        saver.save(model, None, replace(PROGRESS, step=1))
        threading.Timer(0.2, disk.may_write.set).start()
        saver.save(model, None, replace(PROGRESS, step=2))
    assert disk.published_before == [[], ["step-00000001"]]


def test_a_failure_in_the_background_is_told_by_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")

    save(tmp_path, nn.Linear(3, 2), None, replace(PROGRESS, step=1), keep=1)
    monkeypatch.setattr(state_dict_saver, "save", full)
    saver = CheckpointSaver(tmp_path, keep=1)
    saver.save(nn.Linear(3, 2), None, replace(PROGRESS, step=2))
    assert saver._pending is not None
    saver._pending.exception()  # waits
    assert saver.has_failed
    with pytest.raises(DataError, match=r"step-00000002: .* the older ones stay\. disk: No space left.*Remedy: free"):
        saver.save(nn.Linear(3, 2), None, replace(PROGRESS, step=3))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_error_of_training_is_shown_and_the_pending_checkpoint_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), CheckpointSaver(tmp_path, keep=1) as saver:
        saver.save(nn.Linear(3, 2), None, replace(PROGRESS, step=1))
        raise ZeroDivisionError
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000001"
