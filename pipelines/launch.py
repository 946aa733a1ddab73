"""Starts training in a process of its own, and follows it through Dagster Pipes.

dg.PipesSubprocessClient does not fit: it stops its child with SIGINT, leaves it running if it takes more than 20
seconds, and reports only the exit code of a failed child. A training is stopped with SIGTERM and writes a checkpoint
first.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from mmdata.config import Corpus
from mmdata.errors import DataError
from mmdata.inspect import training_runs
from mmdata.releases.manifest import Release
from mmdata.stage import Progress, StageReport
from mmdata.workspace.layout import Workspace
from pipelines.train_process import Request
from pipelines.watcher import watchers

STOP_TIMEOUT_S = 150  # enough to write a checkpoint; cancel_timeout_seconds in dagster.yaml is longer


def train_stage(
    context: dg.AssetExecutionContext,
    corpus: Corpus,
    workspace: Workspace,
    release: Release,
    stage: training_runs.ModelStage,
    progress: Progress,
) -> StageReport:
    """Train a stage with the settings of corpus.yaml; a finished stage is left as it is.

    Raises:
        DataError: the training ended with an error of the data or of the user, or was stopped.
    """
    settings = corpus.train
    output = training_runs.model_folder(workspace, release.id, settings.preset, settings.output)
    overrides = tuple(settings.set)
    folders = str(release.folder), str(output)
    request = Request("train", (stage,), *folders, settings.preset, settings.config, overrides)
    run_child(context, request, settings.processes, _follow(request, progress))
    return training_runs.stage_report(output / stage, release=str(release.folder))


def evaluate_stages(
    context: dg.AssetExecutionContext, release: Release, output: Path, *, samples: int, answers: int
) -> StageReport:
    """Measure the models in a folder on the held-out split of a release.

    Args:
        samples: use at most this many.
        answers: generate an answer for this many of them.
    """
    request = Request(
        "evaluate",
        training_runs.MODEL_STAGES,
        release=str(release.folder),
        output=str(output),
        samples=samples,
        answers=answers,
    )
    run_child(context, request, 1)
    return training_runs.evaluation_report(output, release=str(release.folder))


def run_child(
    context: dg.AssetExecutionContext, request: Request, processes: int, each_second: Callable[[], None] = lambda: None
) -> None:
    """Run pipelines.train_process until it ends; its log lines appear in the log of the run.

    Args:
        each_second: called every second while it runs.

    Raises:
        DataError: the child reported an error of the data or of the user.
        RuntimeError: the child died of something else, such as a device or lack of memory; a retry resumes it.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "pipelines.train_process", request.to_json()]
    with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()) as session:
        stop_timeout = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_TIMEOUT_S)}
        environment = {**os.environ, **stop_timeout, **session.get_bootstrap_env_vars()}
        # The pipe at its standard input closes when this process dies: see train_process. The child has a session of
        # its own, so that Ctrl-C in a terminal reaches it only through this process.
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        try:
            while (code := _ended(process, within_s=1)) is None:
                each_second()
        except BaseException:  # the run is cancelled
            context.log.info("stopping the training: it writes a checkpoint first")
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        errors = [message for message in session.get_custom_messages() if "error" in message]
        if expected := [message["error"] for message in errors if message["expected"]]:
            raise DataError(expected[0])
        ended = signal.Signals(-code).name if code < 0 else f"code {code}"
        why = errors[0]["error"] if errors else "the stderr of the run may say more"
        raise RuntimeError(f"the process of {' and '.join(request.stages)} ended by {ended}: {why}")


def _ended(process: subprocess.Popen[bytes], within_s: float) -> int | None:
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def _follow(request: Request, progress: Progress) -> Callable[[], None]:
    """Make a function that tells the watcher of this process how far a stage is, as its log says."""
    if not watchers():
        return lambda: None
    from training.config_file import load_train_config

    (stage,) = request.stages
    steps = getattr(load_train_config(request.preset, request.config, list(request.overrides)), stage).steps
    return lambda: progress(stage, training_runs.last_step(Path(request.output) / stage), steps)
