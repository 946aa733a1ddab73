"""Lists and restores checkpoints.

A checkpoint is complete or absent, loads at any number of processes, and names the release that it was trained on.
Weights that its stage does not train are in its base, a folder beside it (see training.checkpoint.base).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from mmdata.errors import DataError, UserError
from mmdata.storage.digests import changed_file
from training.checkpoint.base import base_of
from training.checkpoint.checkpoint_files import OPTIMIZER_OPTIONS, REMEDY, CheckpointReader, load_state
from training.config import StageName

FORMAT = 1
META = "meta.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come: everything in a checkpoint except tensors.

    No generator state is kept, since dropout is seeded by the step.
    """

    stage: StageName
    step: int
    consumed: int  # samples; this is the whole state of the loader
    release_id: str  # of the release or own file; of several sources all ids
    release_digest: str  # of several sources a hash of their digests and weights
    config: dict[str, Any]
    best: float | None = None  # for early stopping: the best value of its metric
    best_step: int | None = None  # of that value
    waited: int = 0  # validations since
    bad: int = 0  # unreadable samples that were replaced so far
    read: int = 0  # samples that were read so far
    base: str | None = None  # name of the folder with the weights that are not trained; None: the checkpoint has all
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation
    loss_scale: dict[str, float] = field(default_factory=dict)  # the state of fp16's loss scale; empty without one
    sources: list[dict[str, Any]] = field(default_factory=list)  # of several: id, digest and weight of each
    format: int = FORMAT


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
    *,
    one_of_several: bool = False,
) -> None:
    """Refuse a checkpoint that was trained on another release, or on other sources or weights.

    Args:
        release_id, digest: of the data that are to be used now.
        one_of_several: it is enough that they are one of the sources that the checkpoint was trained on.

    Raises UserError: the data differ, and that is not allowed.
    """
    trained_on = [(progress.release_id, progress.release_digest)]
    if one_of_several:
        trained_on += [(source["id"], source["digest"]) for source in progress.sources]
    if (release_id, digest) not in trained_on and not allowed:
        raise UserError(
            f"{folder}: was trained on release {progress.release_id} (digest {progress.release_digest[:12]}…), not on "
            f"{release_id} ({digest[:12]}…). Remedy: {remedy}."
        )


def restore(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load a model and its optimiser in place. They may be sharded differently from when they were saved.

    Raises DataError: the checkpoint or its base is broken, was changed, or lacks weights of the model.
    """
    weights = get_model_state_dict(model)
    values = get_optimizer_state_dict(model, optimizer, options=OPTIMIZER_OPTIONS)
    if missing := _load(checkpoint, weights, {"optimizer": values}):
        remedy = REMEDY
        if all(name.startswith("masked.") for name in missing):  # of another version, or of a run without it
            remedy = "Remedy: go on without masked prediction (--set align.masked_weight=0, …), or train anew."
        raise DataError(f"{checkpoint}: lacks {len(missing)} tensors of the model, such as {missing[0]}. {remedy}")
    set_model_state_dict(model, weights)
    set_optimizer_state_dict(model, optimizer, values, options=OPTIMIZER_OPTIONS)


def load_weights(checkpoint: Path, model: nn.Module, is_wanted: Callable[[str], bool]) -> list[str]:
    """Load the wanted tensors that a checkpoint or its base has into a model that is complete on this process.

    Args: is_wanted: takes a tensor's name.
    Returns: The names of wanted tensors that the checkpoint lacks, sorted.
    """
    wanted = {name: tensor for name, tensor in model.state_dict().items() if is_wanted(name)}
    missing = _load(checkpoint, wanted, {}, single_process=True)
    model.load_state_dict({name: tensor for name, tensor in wanted.items() if name not in missing}, strict=False)
    return missing


def _load(
    checkpoint: Path, weights: Mapping[str, Any], other: Mapping[str, Any], single_process: bool = False
) -> list[str]:
    """Load tensors in place, from the checkpoint, or else from its base. Returns: the names that neither has, sorted.

    Args: other: what is loaded from the checkpoint beside the weights; if weights are lacking, nothing is loaded.
    """
    missing = dict(weights)
    base = base_of(checkpoint, read_progress(checkpoint).base)
    folders = (checkpoint, *([base] if base is not None else []))
    saved = {folder: CheckpointReader(folder).read_metadata().state_dict_metadata for folder in folders}
    if other and (lacking := [name for name in weights if not any(f"model.{name}" in held for held in saved.values())]):
        return sorted(lacking)
    for folder, held in saved.items():
        state: dict[str, Any] = {"model": {name: missing[name] for name in missing if f"model.{name}" in held}}
        state |= other if folder is checkpoint else {}
        if any(state.values()):
            load_state(state, folder, single_process)
        missing = {name: tensor for name, tensor in missing.items() if name not in state["model"]}
    return sorted(missing)
