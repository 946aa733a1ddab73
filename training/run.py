"""A training run: its stages in order, each resumed where it was, each starting from the one before."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from upath import UPath

from mmdata.errors import UserError
from mmdata.storage.atomic import publish_json
from training.checkpoint.checkpoints import (
    Progress,
    check_release,
    latest_checkpoint,
    read_progress,
    step_name,
)
from training.config import STAGES, Parallel, StageName, TrainConfig
from training.data.batch_readers import EmptySplit, Share
from training.data.sample_index import TrainingRelease, open_training_release
from training.distributed.parallelism import parallelise
from training.distributed.process_mesh import Mesh, join_processes
from training.model.fusion import decoder_list
from training.model.scorer_folder import save_scorer
from training.stages.pipeline import RemoteLayer, cut_pipeline
from training.stages.saved_model import load_model
from training.stages.stage_model import PREVIOUS_STAGE, StageModel, build_model, initialise_weights, stage_settings
from training.stages.stage_reader import make_reader
from training.step_log import OnLine, StepLog
from training.trainer import Outcome, Stopped, Trainer


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended.

    Args:
        folder: `<output>/<stage>`.
        checkpoint: the one to go on from: the best under early stopping, else the last.
        metrics: of the last validation.
        stopped: all steps done, no longer improving, or told to.
    """

    stage: StageName
    folder: Path
    checkpoint: Path
    steps: int
    samples: int
    first_loss: float
    last_loss: float
    metrics: dict[str, float]
    stopped: Stopped
    seconds: float


def train(
    release: str, stages: Sequence[StageName], config: TrainConfig, output: Path, *, on_line: OnLine | None = None
) -> list[StageResult]:
    """Train stages on a release. The same again resumes; a stage that is done is not done again.

    Args:
        release: a release's folder, `releases/latest`, or a workspace.
        output: local folder; a stage's files lie in `<output>/<stage>/`.
        on_line: called with each line of the log, on the main process.

    Raises:
        UserError: the configuration, a checkpoint of another release or configuration, or another run in the folder.
        DataError: the release is broken, or training went wrong.
    """
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise UserError(f"no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    meshes = {stage: join_processes(parallel_of(stage, config), config.device) for stage in stages}
    results = []
    with alone_in(output) if meshes[stages[0]].is_main else nullcontext():
        opened = open_training_release(release, output / "data")
        for stage in stages:
            result = _stage(opened, stage, config, output, meshes[stage], on_line)
            results.append(result)
            if result.stopped == "signal":
                break
    return results


@contextmanager
def alone_in(output: Path, wait_s: float = 15.0) -> Iterator[None]:
    """A block that no other run enters for the same folder: each would resume from the other's checkpoints.

    Args:
        wait_s: seconds; the readers of a run that was killed hold on until they see that it is gone.

    Raises:
        UserError: another run is there; names it.
    """
    output.mkdir(parents=True, exist_ok=True)
    holder = output / ".lock"
    lock = FileLock(holder, timeout=wait_s, poll_interval=0.2)
    try:
        lock.acquire()
    except TimeoutError:
        raise UserError(
            f"{output}: another run trains here: {holder.read_text().strip() or 'just started'}. Remedy: wait until it "
            "has ended, or give another --output."
        ) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()


def parallel_of(stage: StageName, config: TrainConfig) -> Parallel:
    """How a stage is spread: stage `align` has no language model to split, so all its ranks are data-parallel."""
    return config.parallel.model_copy(update={"tp": 1, "pp": 1}) if stage == "align" else config.parallel


def _stage(
    release: TrainingRelease, stage: StageName, config: TrainConfig, output: Path, mesh: Mesh, on_line: OnLine | None
) -> StageResult:
    folder = output / stage
    if (done := read_result(folder)) is not None:
        _check_model(read_progress(done.checkpoint), config, folder)
        check_release(read_progress(done.checkpoint), release.id, release.digest, config.allow_release_change, folder)
        if (done.stopped != "signal" and done.steps >= stage_settings(stage, config).steps) or done.stopped == "early":
            return done
    fresh = Progress(stage, 0, 0, release.id, release.digest, config.model_dump(mode="json"))
    resumed = latest_checkpoint(folder / "checkpoints")
    progress = read_progress(resumed) if resumed is not None else fresh
    check_release(progress, release.id, release.digest, config.allow_release_change, resumed or folder)
    _check_model(progress, config, folder)
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    built = build_model(stage, config)
    initialise_weights(built, config, None if resumed is not None else _before(stage, output, release, config))
    built.model.to(mesh.device)
    settings = stage_settings(stage, config)
    share = Share(mesh.rank("dp"), mesh.size("dp"))
    reader = make_reader(built, release, config, "train", settings.batch_size, share)
    held_out = _held_out(built, release, config, min(settings.batch_size, settings.validate_samples), share)
    if mesh.size("pp") > 1:
        if config.parallel.strategy == "fsdp2":
            raise UserError("parallel.pp > 1 goes with strategy `ddp`, not `fsdp2`")
        cut_pipeline(built.model, mesh)  # type: ignore[arg-type]
        built.blocks = [block for block in decoder_list(built.llm) if not isinstance(block, RemoteLayer)]
    wrapped = parallelise(built.model, built.llm, built.blocks, config.parallel, mesh)
    log = StepLog(folder, config.log, mesh.is_main, on_line)
    trainer = Trainer(built, wrapped, config, settings, mesh, (reader, held_out), folder, log)
    outcome = trainer.run(progress, resumed)
    result = _result(stage, folder, outcome)
    if mesh.is_main:
        publish_json(
            UPath(folder / "result.json"),
            {**asdict(result), "folder": str(folder), "checkpoint": result.checkpoint.name},
        )
        if stage == "align" and config.model.encoder.kind != "hf" and outcome.stopped != "signal":
            write_scorer(result.checkpoint, folder / "scorer")
    mesh.barrier()
    return result


def write_scorer(checkpoint: Path, folder: Path) -> None:
    """Write a stage 1 checkpoint as the scorer of the next refresh: `score: {model: <folder>}`."""
    built, config = load_model(checkpoint)
    save_scorer(built.model, config.model.encoder, folder)  # type: ignore[arg-type]


def read_result(folder: Path) -> StageResult | None:
    """A stage's result.json, if its checkpoint is there too."""
    path = folder / "result.json"
    if not path.exists():
        return None
    values: dict[str, Any] = json.loads(path.read_text())
    checkpoint = folder / "checkpoints" / values["checkpoint"]
    if not (checkpoint / "meta.json").exists():
        return None
    return StageResult(**{**values, "folder": folder, "checkpoint": checkpoint})


def _before(stage: StageName, output: Path, release: TrainingRelease, config: TrainConfig) -> Path | None:
    """The checkpoint of the stage before; None: there is none, and the first weights are used."""
    if stage not in PREVIOUS_STAGE:
        return None
    done = read_result(output / PREVIOUS_STAGE[stage])
    if done is None:
        return None
    check_release(read_progress(done.checkpoint), release.id, release.digest, config.allow_release_change, done.folder)
    return done.checkpoint


def _held_out(built: StageModel, release: TrainingRelease, config: TrainConfig, size: int, share: Share) -> Any:
    samples = release.samples("validation")
    size = max(share.world, size - size % share.world)
    if not len(samples):
        return None
    if built.stage == "instruct":
        names = release.release.manifest["files"]
        if f"instruct-{config.instruct.form}-validation.jsonl" not in names:
            return None
    try:
        return make_reader(built, release, config, "validation", size, share)
    except EmptySplit:
        return None


def _check_model(progress: Progress, config: TrainConfig, folder: Path) -> None:
    """A checkpoint goes on with the model that it was made with."""
    now = config.model.model_dump(mode="json")
    if progress.config["model"] != now:
        differing = [key for key in now if progress.config["model"].get(key) != now[key]]
        raise UserError(
            f"{folder}: its checkpoint is of another model ([model] differs in {', '.join(differing)}). "
            "Remedy: another --output, or the configuration of before."
        )


def _result(stage: StageName, folder: Path, outcome: Outcome) -> StageResult:
    progress = outcome.progress
    checkpoint = outcome.checkpoint
    if progress.best_step is not None:
        checkpoint = folder / "checkpoints" / step_name(progress.best_step)
    return StageResult(
        stage, folder, checkpoint, progress.step, progress.consumed, outcome.first_loss, outcome.last_loss,
        progress.metrics, outcome.stopped, outcome.seconds,
    )  # fmt: skip
