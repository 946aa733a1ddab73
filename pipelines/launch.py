"""Training in a process of its own, followed through Dagster Pipes.

Not dg.PipesSubprocessClient: that one stops its child by SIGINT, gives it 20 seconds and then leaves it running, and
says of a failed child its exit code alone. A training is stopped by SIGTERM, and writes a checkpoint first.
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
from mmdata.inspect.training_runs import (
    MODEL_STAGES,
    ModelStage,
    evaluation_report,
    last_step,
    model_folder,
    stage_report,
)
from mmdata.releases.manifest import Release
from mmdata.stage import Progress, StageReport
from mmdata.workspace.layout import Workspace
from pipelines.train_process import Request
from pipelines.watcher import current_watcher

STOP_S = 150  # for a checkpoint; run_monitoring.cancel_timeout_seconds of dagster.yaml is longer


def train_stage(
    context: dg.AssetExecutionContext,
    corpus: Corpus,
    workspace: Workspace,
    release: Release,
    stage: ModelStage,
    progress: Progress,
) -> StageReport:
    """Train a stage as corpus.yaml says; one that is finished already is left as it is.

    Raises:
        DataError: the training ended with an error of the data or of the user's, or was stopped.
    """
    settings = corpus.train
    output = model_folder(workspace, release.id, settings.preset, settings.output)
    request = Request(
        "train",
        (stage,),
        release=str(release.folder),
        output=str(output),
        preset=settings.preset,
        config=settings.config,
        overrides=tuple(settings.set),
    )
    run_child(context, request, settings.processes, _follow(request, progress))
    return stage_report(output / stage, release=str(release.folder))


def evaluate_stages(
    context: dg.AssetExecutionContext, release: Release, output: Path, *, samples: int, answers: int
) -> StageReport:
    """Measure the models of a folder on so many samples of the release's held-out split."""
    request = Request(
        "evaluate", MODEL_STAGES, release=str(release.folder), output=str(output), samples=samples, answers=answers
    )
    run_child(context, request, 1)
    return evaluation_report(output, release=str(release.folder))


def run_child(
    context: dg.AssetExecutionContext,
    request: Request,
    processes: int,
    each_second: Callable[[], None] = lambda: None,
) -> None:
    """Run pipelines.train_process until it ends; its log lines go into the run's log as they come.

    Args:
        each_second: called while it runs.

    Raises:
        DataError: it said what is wrong.
        RuntimeError: it died of something else (a device, the out-of-memory killer): worth another try, which resumes.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "pipelines.train_process", request.to_json()]
    with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()) as session:
        environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_S), **session.get_bootstrap_env_vars()}
        # The pipe at its standard input closes with this process: see train_process. A session of its own, so that
        # Ctrl-C in a terminal reaches it through us alone.
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        try:
            while (code := _ended(process, within_s=1)) is None:
                each_second()
        except BaseException:  # the run is cancelled
            context.log.info("stopping the training: it writes a checkpoint first")
            process.terminate()
            try:
                process.wait(STOP_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        said = [message for message in session.get_custom_messages() if "error" in message]
        if expected := [message["error"] for message in said if message["expected"]]:
            raise DataError(expected[0])
        ended = signal.Signals(-code).name if code < 0 else f"code {code}"
        why = said[0]["error"] if said else "the run's stderr may say more"
        raise RuntimeError(f"the process of {' and '.join(request.stages)} ended by {ended}: {why}")


def _ended(process: subprocess.Popen[bytes], within_s: float) -> int | None:
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def _follow(request: Request, progress: Progress) -> Callable[[], None]:
    """Tell a watcher in this process, if there is one, how far a stage is, as its log says."""
    if current_watcher() is None:
        return lambda: None
    from training.config import load_train_config

    (stage,) = request.stages
    steps = getattr(load_train_config(request.preset, request.config, list(request.overrides)), stage).steps
    return lambda: progress(stage, last_step(Path(request.output) / stage), steps)
