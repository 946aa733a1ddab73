"""Checkpoints: whole or absent, readable at any world size, and tied to the release that they were trained on."""

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
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.storage.atomic import TEMPORARY, publish_json, sync
from training.checkpoint.checkpoint_files import CheckpointReader, load
from training.config import StageName

FORMAT = 1
META = "meta.json"
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # by name: ranks of a pipeline hold different ones


@dataclass(frozen=True, slots=True)
class Progress:
    """What a checkpoint knows besides tensors. Dropout is seeded by step, so there is no generator state to keep.

    Args:
        consumed: samples: the loader's whole state.
        best, best_step, waited: early stopping: the best value of its metric, its step, and validations since.
        bad: unreadable samples replaced so far.
    """

    stage: StageName
    step: int
    consumed: int
    release_id: str
    release_digest: str
    config: dict[str, Any]
    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    bad: int = 0
    read: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT


def save(folder: Path, model: nn.Module, optimizer: Optimizer | None, progress: Progress, keep: int) -> Path:
    """Write `folder/step-…` under a temporary name, then rename it; older ones beyond `keep` go afterwards."""
    name = step_name(progress.step)
    draft, final = folder / f"{TEMPORARY}{name}", folder / name
    main = not dist.is_initialized() or dist.get_rank() == 0
    if main:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    _barrier()
    state: dict[str, Any] = {"model": get_model_state_dict(model)}
    if optimizer is not None:
        state["optimizer"] = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    with _quiet():
        dcp.save(state, checkpoint_id=draft)
    if main:
        (draft / META).write_text(json.dumps(asdict(progress), indent=1))
        for path in draft.iterdir():
            sync(path)
        sync(draft)
        shutil.rmtree(final, ignore_errors=True)  # of a step that is being done again
        draft.replace(final)
        sync(folder)
        for old in checkpoints(folder)[:-keep]:
            if progress.best_step is None or old.name != step_name(progress.best_step):
                shutil.rmtree(old, ignore_errors=True)
    _barrier()
    return final


def step_name(step: int) -> str:
    """A checkpoint's folder name."""
    return f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / META).exists())


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = checkpoints(folder)
    return found[-1] if found else None


def find(path: Path) -> Path:
    """A checkpoint: the folder itself, or the newest of a stage's folder.

    Raises:
        UserError: there is none.
    """
    if (path / META).exists():
        return path
    if (path / "result.json").exists():
        named = path / "checkpoints" / Path(json.loads((path / "result.json").read_text())["checkpoint"]).name
        if (named / META).exists():
            return named
    if (found := latest(path / "checkpoints")) is None:
        raise UserError(f"{path}: no checkpoint there (no {META}). Give a stage's folder, such as output/align.")
    return found


def read_progress(checkpoint: Path) -> Progress:
    """Raises DataError: the checkpoint is broken or of another format."""
    try:
        values = json.loads((checkpoint / META).read_text())
        progress = Progress(**values)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{checkpoint / META}: cannot be read ({error}). Remedy: delete this checkpoint.") from None
    if progress.format != FORMAT:
        raise DataError(f"{checkpoint}: format {progress.format}; this mmdata reads format {FORMAT}")
    return progress


def check_release(progress: Progress, release_id: str, digest: str, allowed: bool, place: Path) -> None:
    """Refuse a checkpoint of another release.

    Raises:
        UserError: it is, and `allow_release_change` is not set.
    """
    if (progress.release_id, progress.release_digest) != (release_id, digest) and not allowed:
        raise UserError(
            f"{place}: was trained on release {progress.release_id} (digest {progress.release_digest[:12]}…), not on "
            f"{release_id} ({digest[:12]}…). Remedy: another --output, or --set allow_release_change=true."
        )


def restore(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load model and optimiser as they are sharded now, however they were saved."""
    state: dict[str, Any] = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_FLAT),
    }
    with _quiet():
        load(state, checkpoint)
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=_FLAT)


def load_weights(checkpoint: Path, model: nn.Module, wanted: Callable[[str], bool]) -> list[str]:
    """Load those of a model's tensors that a checkpoint has; the model is whole, on this process.

    Args:
        wanted: names that are looked for.

    Returns:
        Names that were wanted and not found.
    """
    there = {name.removeprefix("model.") for name in CheckpointReader(checkpoint).read_metadata().state_dict_metadata}
    own = {name: tensor for name, tensor in model.state_dict().items() if wanted(name)}
    state = {"model": {name: tensor for name, tensor in own.items() if name in there}}
    if state["model"]:
        with _quiet():
            load(state, checkpoint, alone=True)
        model.load_state_dict(state["model"], strict=False)
    return sorted(set(own) - there)


def write_json(path: Path, value: Any) -> None:
    """Publish a JSON file atomically."""
    publish_json(UPath(path), value)


class _quiet(warnings.catch_warnings):  # noqa: N801 - used as a context, like its parent
    """torch's checkpoint warns that a lone process has no process group; that is what we want there."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        return entered


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
