"""Saves, lists and restores checkpoints.

A checkpoint is complete or absent, loads at any number of processes, and names the release that it was trained on.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from mmdata.errors import DataError, UserError, describe_machine_error, first_line
from mmdata.storage.atomic import TEMPORARY, sync
from mmdata.storage.digests import changed_file, write_digests
from training.checkpoint.checkpoint_files import (
    METADATA_FILE,
    REMEDY,
    CheckpointReader,
    CheckpointWriter,
    load_state,
    write_own_digests,
)
from training.config import StageName

FORMAT = 1
META = "meta.json"
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # by name: pipeline ranks hold different parameters


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come: everything in a checkpoint except tensors.

    No generator state is kept, since dropout is seeded by the step.
    """

    stage: StageName
    step: int
    consumed: int  # samples; this is the whole state of the loader
    release_id: str
    release_digest: str
    config: dict[str, Any]
    best: float | None = None  # for early stopping: the best value of its metric
    best_step: int | None = None  # of that value
    waited: int = 0  # validations since
    bad: int = 0  # unreadable samples that were replaced so far
    read: int = 0  # samples that were read so far
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation
    loss_scale: dict[str, float] = field(default_factory=dict)  # the state of fp16's loss scale; empty without one
    format: int = FORMAT


def save(folder: Path, model: nn.Module, optimizer: Optimizer | None, progress: Progress, keep: int) -> Path:
    """Write a checkpoint under a temporary name, rename it to `folder/step-…`, then delete older ones.

    Args: keep: the newest checkpoints that stay, besides the best one.
    Raises DataError: it cannot be written, because the disk is full for example; the older ones stay.
    """
    name = step_name(progress.step)
    draft, final = folder / f"{TEMPORARY}{name}", folder / name
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    if is_main:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    _barrier()
    state: dict[str, Any] = {"model": get_model_state_dict(model)}
    if optimizer is not None:
        state["optimizer"] = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    _write_state(state, draft, final)
    write_own_digests(draft)
    _barrier()
    if is_main:
        (draft / META).write_text(json.dumps(asdict(progress), indent=1))
        write_digests([draft / METADATA_FILE, draft / META])
        for path in draft.iterdir():
            sync(path)
        sync(draft)
        shutil.rmtree(final, ignore_errors=True)  # there is one if this step is trained a second time
        draft.replace(final)
        sync(folder)
        for old in list_checkpoints(folder)[:-keep]:
            if progress.best_step is None or old.name != step_name(progress.best_step):
                shutil.rmtree(old, ignore_errors=True)
    _barrier()
    return final


def _write_state(state: dict[str, Any], draft: Path, final: Path) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, that a single process has no process group
            dcp.save(state, checkpoint_id=draft, storage_writer=CheckpointWriter(draft))
    except dcp.CheckpointException as error:  # torch makes it no Exception, and hides the cause in it
        failure: BaseException = next((failure for failure, _ in error.failures.values()), error)
        reason = describe_machine_error(failure) or first_line(failure)
        shutil.rmtree(draft, ignore_errors=True)
        raise DataError(f"{final}: the checkpoint cannot be written, and the older ones stay. {reason}") from failure


def step_name(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / META).exists())


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder."""
    return next(reversed(list_checkpoints(folder)), None)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint at a path. For a stage's folder: the one that its result names, else the newest.

    Raises UserError: there is none.
    """
    if (path / META).exists():
        return path
    if (path / "result.json").exists():
        result = path / "checkpoints" / Path(json.loads((path / "result.json").read_text())["checkpoint"]).name
        if (result / META).exists():
            return result
    if (newest := latest_checkpoint(path / "checkpoints")) is None:
        raise UserError(
            f"{path}: no checkpoint there (no {META}). Remedy: give the folder of a stage, such as output/align."
        )
    return newest


def read_progress(checkpoint: Path) -> Progress:
    """Read a checkpoint's `meta.json`. Raises DataError: the checkpoint is broken or of another format."""
    try:
        values = json.loads((checkpoint / META).read_text())
        progress = Progress(**values)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{checkpoint / META}: cannot be read ({error}). {REMEDY}") from None
    if progress.format != FORMAT:
        raise DataError(f"{checkpoint}: format {progress.format}; this mmdata reads format {FORMAT}")
    if problem := changed_file([checkpoint / META]):
        raise DataError(f"{problem}. {REMEDY}")
    return progress


def check_release(
    progress: Progress,
    release_id: str,
    digest: str,
    allowed: bool,
    folder: Path,
    remedy: str = "use another --output, or --set allow_release_change=true",
) -> None:
    """Refuse a checkpoint that was trained on another release.

    Args:
        release_id, digest: of the release that is to be used now.

    Raises UserError: the releases differ, and that is not allowed.
    """
    if (progress.release_id, progress.release_digest) != (release_id, digest) and not allowed:
        raise UserError(
            f"{folder}: was trained on release {progress.release_id} (digest {progress.release_digest[:12]}…), not on "
            f"{release_id} ({digest[:12]}…). Remedy: {remedy}."
        )


def restore(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load a model and its optimiser in place. They may be sharded differently from when they were saved."""
    state: dict[str, Any] = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_FLAT),
    }
    with warnings.catch_warnings(action="ignore"):
        load_state(state, checkpoint)
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=_FLAT)


def load_weights(checkpoint: Path, model: nn.Module, is_wanted: Callable[[str], bool]) -> list[str]:
    """Load the wanted tensors that a checkpoint has into a model that is complete on this process.

    Args: is_wanted: takes a tensor's name.
    Returns: The names of wanted tensors that the checkpoint lacks, sorted.
    """
    saved = {name.removeprefix("model.") for name in CheckpointReader(checkpoint).read_metadata().state_dict_metadata}
    wanted = {name: tensor for name, tensor in model.state_dict().items() if is_wanted(name)}
    state = {"model": {name: tensor for name, tensor in wanted.items() if name in saved}}
    if state["model"]:
        with warnings.catch_warnings(action="ignore"):
            load_state(state, checkpoint, single_process=True)
        model.load_state_dict(state["model"], strict=False)
    return sorted(set(wanted) - saved)


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
