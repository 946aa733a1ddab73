"""Runs training stages in order. Each resumes from its last checkpoint, or starts from the stage before it.

`python -m training`, `mmdata train` and the pipelines call `train`.
"""

from __future__ import annotations

import json
import os
import random
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock, Timeout
from upath import UPath

from mmdata.errors import UserError
from mmdata.inspect.training_runs import LEFT_OUT
from mmdata.storage.atomic import publish_json
from training.checkpoint.checkpoints import META, Progress, check_release, latest_checkpoint, read_progress
from training.config import STAGES, Parallel, StageName, TrainConfig
from training.data.batch_readers import Share
from training.data.training_data import TrainingData, open_training_data
from training.distributed.gradients import Autocast
from training.distributed.parallelism import compute_dtype, parallelise
from training.distributed.process_mesh import Mesh, join_processes
from training.model.encoders import DualEncoder
from training.model.fusion import decoder_list
from training.model.multimodal_lm import MultimodalLm
from training.model.packing_check import check_samples_apart
from training.model.scorer_folder import can_be_scorer, save_scorer
from training.stages.frozen_towers import cached_features, fill_tables, frozen_towers
from training.stages.pipeline import RemoteLayer, cut_pipeline
from training.stages.stage_model import (
    PREVIOUS_STAGE,
    StageModel,
    build_model,
    generative_settings,
    initialise_weights,
    keep_reference,
    load_model,
    stage_settings,
)
from training.stages.stage_reader import left_out_of, make_reader, make_validation_reader
from training.stages.step_flops import StepFlops
from training.step_log import OnLine, StepLog, peak_flops
from training.trainer import StageResult, Trainer, precision


def train(
    sources: str | Sequence[str],
    stages: Sequence[StageName],
    config: TrainConfig,
    output: Path,
    *,
    on_line: OnLine | None = None,
) -> list[StageResult]:
    """Train stages on some data. A stage that was interrupted is resumed; a stage that is complete is not run again.

    Args:
        sources: releases (a folder, `releases/latest`, or a workspace) and own files, beside `config.data.sources`.
        output: local folder; the files of a stage are in `<output>/<stage>/`.
        on_line: called with each line of the log, on the main process.

    Raises:
        UserError: a wrong configuration, a checkpoint of other data or another configuration, a stage without data, or
            another run in the output folder.
        DataError: the data are broken, or training went wrong.
    """
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise UserError(f"there is no stage {unknown[0]!r}. Remedy: one of {', '.join(STAGES)}.")
    meshes = {stage: join_processes(_parallel_of(stage, config), config.device) for stage in stages}
    results = []
    with run_lock(output) if meshes[stages[0]].is_main else nullcontext():
        opened = open_training_data([sources] if isinstance(sources, str) else sources, config.data, output / "data")
        for stage in stages:
            opened.origin(stage)  # a stage without data is refused before another one is trained
        for stage in stages:
            result = read_result(output / stage)
            if result is not None:
                _check_origin(result.checkpoint, opened, config)
            if result is None or not result.is_complete(stage_settings(stage, config).steps):
                result = _train_stage(opened, stage, config, output, meshes[stage], on_line)
            results.append(result)
            if result.stopped == "signal":
                break
    return results


@contextmanager
def run_lock(output: Path, wait_s: float = 15.0) -> Iterator[None]:
    """Keep other runs out of an output folder, since each would resume from the other's checkpoints.

    Args: wait_s: seconds. The data readers of a killed run hold its lock until they notice that it has ended.
    Raises UserError: another run is there; the error names it.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".lock"
    try:
        lock = FileLock(path).acquire(timeout=wait_s, poll_interval=0.2)
    except Timeout:
        raise UserError(
            f"{output}: another run trains here: {path.read_text().strip() or 'just started'}. Remedy: wait until it "
            "has ended, or give another --output."
        ) from None
    with lock:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield


def read_result(folder: Path) -> StageResult | None:
    """Read a stage's `result.json`; None if it is missing, or its checkpoint is."""
    path = folder / "result.json"
    if not path.exists():
        return None
    values: dict[str, Any] = json.loads(path.read_text())
    checkpoint = folder / "checkpoints" / values["checkpoint"]
    if not (checkpoint / META).exists():
        return None
    return StageResult(**{**values, "folder": folder, "checkpoint": checkpoint})


def _parallel_of(stage: StageName, config: TrainConfig) -> Parallel:
    """How a stage is parallel. Stage `align` has no language model to split, so all its ranks are data-parallel."""
    return config.parallel.model_copy(update={"tp": 1, "pp": 1}) if stage == "align" else config.parallel


def _train_stage(
    data: TrainingData, stage: StageName, config: TrainConfig, output: Path, mesh: Mesh, on_line: OnLine | None
) -> StageResult:
    """Train one stage until it is complete or gets a signal, and write its result."""
    folder = output / stage
    resumed = latest_checkpoint(folder / "checkpoints")
    if resumed is not None:
        progress = _check_origin(resumed, data, config)
    else:
        origin = data.origin(stage)
        settings = config.model_dump(mode="json")
        progress = Progress(stage, 0, 0, origin.id, origin.digest, settings, sources=list(origin.sources))
    result = _make_trainer(data, config, output, mesh, on_line, progress).run(progress, resumed)
    if mesh.is_main:
        values = {**asdict(result), "folder": str(folder), "checkpoint": result.checkpoint.name}
        publish_json(UPath(folder / "result.json"), values)
        if stage == "align" and can_be_scorer(config.model.encoder) and result.stopped != "signal":
            built, _ = load_model(result.checkpoint)  # as the scorer of the next refresh: `score: {model: <folder>}`
            save_scorer(cast(DualEncoder, built.model), config.model.encoder, folder / "scorer")
    mesh.barrier()
    return result


def _make_trainer(
    data: TrainingData, config: TrainConfig, output: Path, mesh: Mesh, on_line: OnLine | None, progress: Progress
) -> Trainer:
    """Build a stage's model, readers and log on this process, and compute the features that it reads from a cache.

    Args: progress: where the stage begins.
    """
    stage = progress.stage
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    settings = stage_settings(stage, config)
    built = build_model(stage, config)
    # A resumed run does this too: the KL term compares with the model that the stage started from.
    initialise_weights(built, config, _previous(stage, output, data, config))
    keep_reference(built, config, mesh.device, compute_dtype(config.parallel.precision, mesh.device))
    built.model.to(mesh.device)
    autocast, _ = precision(config.parallel.precision, mesh.device)
    if stage != "align":
        _check_language_model(built, config, mesh, autocast)
    share = Share(mesh.rank("dp"), mesh.size("dp"))
    towers = frozen_towers(built, config, output / "data" / "features")
    features = cached_features(towers)
    reader = make_reader(built, data, config, "train", settings.batch_size, share, features)
    held_out_size = min(settings.batch_size, settings.validate_samples)
    held_out_size = max(share.world, held_out_size - held_out_size % share.world)  # a multiple of the ranks
    held_out = make_validation_reader(built, data, config, held_out_size, share, features)
    log = StepLog(output / stage, config.log, mesh.is_main, on_line)
    if stage == "instruct" and data.own:
        log.write({"kind": "records", "step": progress.step, **data.counts_of_own()})
    if left_out := left_out_of(reader.source):
        log.write({"kind": LEFT_OUT, "step": progress.step, **left_out})
    if towers:
        wanted = [(reader, settings.steps * settings.batch_size)]
        wanted += [] if held_out is None else [(held_out, settings.validate_samples + held_out_size)]
        step = {"step": progress.step}
        filled = fill_tables(
            built, towers, wanted, mesh, config.data.workers, autocast,
            lambda plan: log.write({"kind": "features_planned", **step, **plan}),
        )  # fmt: skip
        log.write({"kind": "features", **step, **filled})
    work = StepFlops(built, config) if peak_flops(config.log, mesh.device) is not None else None
    if mesh.size("pp") > 1:
        if config.parallel.strategy == "fsdp2":
            raise UserError("parallel.pp > 1 does not work with strategy `fsdp2`. Remedy: parallel.strategy = ddp.")
        cut_pipeline(cast(MultimodalLm, built.model), mesh)
        built.blocks = [block for block in decoder_list(built.llm) if not isinstance(block, RemoteLayer)]
    wrapped = parallelise(built.model, built.llm, built.blocks, config.parallel, mesh)
    return Trainer(built, wrapped, config, settings, mesh, (reader, held_out), output / stage, log, work)


def _check_language_model(built: StageModel, config: TrainConfig, mesh: Mesh, autocast: Autocast) -> None:
    """Check that samples of a row do not see each other, and warn if answers may not end."""
    model, codec = built.generative()
    if generative_settings(built.stage, config).pack:
        with autocast():
            check_samples_apart(model.llm, model.attention)
    if built.stage == "instruct" and mesh.is_main and codec.ending_problem is not None:
        warnings.warn(codec.ending_problem, stacklevel=2)


def _previous(stage: StageName, output: Path, data: TrainingData, config: TrainConfig) -> Path | None:
    """The checkpoint of the stage before; None if there is none, and the stage starts from initial weights.

    Raises UserError: it was trained on other releases. A run on own data alone has none to compare with.
    """
    if stage not in PREVIOUS_STAGE or (result := read_result(output / PREVIOUS_STAGE[stage])) is None:
        return None
    progress = read_progress(result.checkpoint)
    if data.releases:
        origin = data.origin(PREVIOUS_STAGE[stage])
        check_release(progress, origin.id, origin.digest, config.allow_release_change, result.folder)
    return result.checkpoint


def _check_origin(checkpoint: Path, data: TrainingData, config: TrainConfig) -> Progress:
    """Read a checkpoint's progress. Raises UserError if it comes from other data or another model."""
    progress = read_progress(checkpoint)
    origin = data.origin(progress.stage)
    check_release(progress, origin.id, origin.digest, config.allow_release_change, checkpoint)
    settings = config.model.model_dump(mode="json")
    trained = TrainConfig.model_validate(progress.config).model.model_dump(mode="json")  # older ones lack newer keys
    trained["llm"]["attention"] = settings["llm"]["attention"]  # how it is computed, not what
    if trained != settings:
        differing = [key for key in settings if trained[key] != settings[key]]
        raise UserError(
            f"{checkpoint}: is a checkpoint of another model ([model] differs in {', '.join(differing)}). "
            "Remedy: use another --output, or the [model] section that the run began with."
        )
    return progress
