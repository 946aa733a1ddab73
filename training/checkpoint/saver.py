"""Saves checkpoints while training goes on: tensors are copied to main memory, and a thread writes the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.optim import Optimizer

from mmdata.errors import DataError, describe_machine_error, first_line
from mmdata.storage.atomic import TEMPORARY, sync
from mmdata.storage.digests import changed_file, write_digests
from training.checkpoint.base import PREFIX, base_name, frozen_names
from training.checkpoint.checkpoint_files import (
    METADATA_FILE,
    OPTIMIZER_OPTIONS,
    CheckpointWriter,
    write_own_digests,
)
from training.checkpoint.checkpoints import META, Progress, list_checkpoints, read_progress, step_name


class CheckpointSaver:
    """Saves the checkpoints of a run. All processes call each method together.

    A checkpoint is written under a temporary name and renamed to `folder/step-…` when it is whole. Then older ones are
    deleted. Weights that are not trained are written once, into a base beside the checkpoints. As a context manager it
    waits at the end.

    Args:
        keep: the newest checkpoints that stay, besides the best one.
        base: name of the base of the checkpoint that the run goes on from.
    """

    def __init__(self, folder: Path, keep: int, base: str | None = None) -> None:
        self._folder, self._keep, self._base = folder, keep, base
        # The thread's calls must not meet those of training in one group, and it moves nothing on a GPU.
        self._group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._is_main = not dist.is_initialized() or dist.get_rank() == 0
        self._pending: Future[None] | None = None

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.wait()
        else:
            with suppress(Exception):  # the first error is the one to show
                self.wait()

    def save(self, model: nn.Module, optimizer: Optimizer | None, progress: Progress) -> Path:
        """Copy the tensors, and write the checkpoint in the background, after the one before.

        Returns: the folder that the checkpoint will have. It is there when `wait` returns.
        Raises DataError: the checkpoint before cannot be written, because the disk is full for example.
        """
        self.wait()
        weights, frozen = get_model_state_dict(model), frozen_names(model)
        # a rank of a pipeline may have none, and takes part all the same
        if self._base is None and any(self._gathered(bool(frozen))):
            self._base = self._write_base({name: weights[name] for name in weights if name in frozen})
        progress = replace(progress, base=self._base)
        state: dict[str, Any] = {"model": {name: weights[name] for name in weights if name not in frozen}}
        if optimizer is not None:
            state["optimizer"] = get_optimizer_state_dict(model, optimizer, options=OPTIMIZER_OPTIONS)
        final = self._folder / step_name(progress.step)
        draft = self._empty_draft(final.name)
        writer = CheckpointWriter(draft)
        written = dcp.async_save(state, checkpoint_id=draft, storage_writer=writer, process_group=self._group)
        executor = ThreadPoolExecutor(1, "checkpoint")
        self._pending = executor.submit(self._finish, written, draft, final, progress)
        executor.shutdown(wait=False)
        return final

    @property
    def has_failed(self) -> bool:
        """Whether a checkpoint could not be written in the background. `save` and `wait` then say why."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def wait(self) -> None:
        """Wait until the last checkpoint is published. Raises DataError: it cannot be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write_base(self, frozen: dict[str, Any]) -> str:
        """Write the weights that are not trained. Returns: the base's name."""
        draft = self._empty_draft("base")
        target = self._folder / f"{PREFIX}…"

        def write() -> None:
            writer = CheckpointWriter(draft)
            dcp.save({"model": frozen}, checkpoint_id=draft, storage_writer=writer, process_group=self._group)
            write_own_digests(draft)

        def publish() -> str:
            write_digests([draft / METADATA_FILE])
            final = self._folder / base_name(draft)
            if final.exists() and changed_file(final.glob("*.distcp")) is None:
                shutil.rmtree(draft)  # a stage that starts anew may have the same base
            else:
                self._publish(draft, final)
            return final.name

        self._together(write, draft, target)
        return next(filter(None, self._together(publish if self._is_main else None, draft, target)))

    def _finish(self, written: Any, draft: Path, final: Path, progress: Progress) -> None:
        """Complete a checkpoint whose tensors are being written; runs in a thread."""

        def write() -> None:
            written.result()
            write_own_digests(draft)

        def publish() -> None:
            (draft / META).write_text(json.dumps(asdict(progress), indent=1))
            write_digests([draft / METADATA_FILE, draft / META])
            self._publish(draft, final)
            self._delete_old(progress)

        self._together(write, draft, final)
        self._together(publish if self._is_main else None, draft, final)

    def _together(self, work: Callable[[], str | None] | None, draft: Path, final: Path) -> list[str | None]:
        """Do a part of a save, and wait until all processes have done theirs. Returns: what each returned.

        Raises DataError: on all of them, if one of them failed.
        """
        result, problem = None, None
        try:
            result = work() if work is not None else None
        except dcp.CheckpointException as error:  # torch makes it no Exception, and hides the cause in it
            problem = _reason(next((failure for failure, _ in error.failures.values()), error))
        except OSError as error:
            problem = _reason(error)
        outcomes = self._gathered((result, problem))
        if reason := next((problem for _, problem in outcomes if problem), None):
            if self._is_main:
                shutil.rmtree(draft, ignore_errors=True)
            raise DataError(f"{final}: the checkpoint cannot be written, and the older ones stay. {reason}")
        return [result for result, _ in outcomes]

    def _gathered(self, value: Any) -> list[Any]:
        """A value of each process."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _empty_draft(self, name: str) -> Path:
        """An empty folder to write in, on all processes. What a killed run was writing is deleted."""
        draft = self._folder / f"{TEMPORARY}{name}"
        if self._is_main:
            for left in self._folder.glob(f"{TEMPORARY}*"):
                shutil.rmtree(left, ignore_errors=True)
            draft.mkdir(parents=True)
        if self._group is not None:
            dist.barrier(self._group)
        return draft

    def _publish(self, draft: Path, final: Path) -> None:
        for path in draft.iterdir():
            sync(path)
        sync(draft)
        shutil.rmtree(final, ignore_errors=True)  # there is one if this step is trained a second time
        draft.replace(final)
        sync(self._folder)

    def _delete_old(self, progress: Progress) -> None:
        """Delete the checkpoints that are not kept, and the bases that no other names."""
        for old in list_checkpoints(self._folder)[: -self._keep]:
            if progress.best_step is None or old.name != step_name(progress.best_step):
                shutil.rmtree(old, ignore_errors=True)
        used = {read_progress(checkpoint).base for checkpoint in list_checkpoints(self._folder)}
        for base in self._folder.glob(f"{PREFIX}*"):
            if base.name not in used:
                shutil.rmtree(base, ignore_errors=True)


def save(folder: Path, model: nn.Module, optimizer: Optimizer | None, progress: Progress, keep: int) -> Path:
    """Save one checkpoint and wait for it. Arguments and errors are those of CheckpointSaver."""
    with CheckpointSaver(folder, keep) as saver:
        return saver.save(model, optimizer, progress)


def _reason(failure: BaseException) -> str:
    return describe_machine_error(failure) or first_line(failure)
