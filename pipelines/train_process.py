"""The child process of a training asset: it trains or evaluates, and reports to Dagster through Pipes.

`pipelines.launch` starts it as `python -m pipelines.train_process REQUEST`, or under torchrun, where rank 0 reports.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from mmdata.errors import DataError, MMDataError, UserError
from mmdata.inspect.training_runs import ModelStage, step_text


@dataclass(frozen=True, slots=True)
class Request:
    """The work of a child process.

    Args:
        stages: trained one after the other; with `evaluate`, the stages whose models are measured.
        release: the folder of the release.
        output: the folder of the models, with a folder for each stage.
        preset, config, overrides: as `mmdata train` takes them.
        samples, answers: as `mmdata evaluate` takes them.
    """

    task: Literal["train", "evaluate"]
    stages: tuple[ModelStage, ...]
    release: str
    output: str
    preset: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    samples: int | None = None
    answers: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        values = json.loads(text)
        return cls(**{**values, "stages": tuple(values["stages"]), "overrides": tuple(values["overrides"])})


def main(request: Request) -> int:
    """Do the work. Returns the exit code, with the meaning of the command line's: 0 success, 1 data, 2 user error."""
    if PipesEnvVarParamsLoader().is_dagster_pipes_process():
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
    rank = int(os.environ.get("RANK", "0"))
    with nullcontext() if rank else open_dagster_pipes() as pipes:
        try:
            _work(request, pipes)
        except Exception as error:
            is_expected = isinstance(error, MMDataError)
            text = str(error) if is_expected else f"{type(error).__name__}: {error}"
            reporter = pipes or open_dagster_pipes()  # other ranks than 0 report only what ends the run
            reporter.report_custom_message({"error": f"rank {rank}: {text}" if rank else text, "expected": is_expected})
            if not is_expected:
                raise
            sys.stderr.write(f"error: {error}\n")
            return 2 if isinstance(error, UserError) else 1
    return 0


def _work(request: Request, pipes: PipesContext | None) -> None:
    if request.task == "evaluate":
        from training.evaluate.evaluation import evaluate

        for stage in request.stages:
            if pipes:
                pipes.log.info(f"evaluating {stage}")
            evaluate(Path(request.output) / stage, request.release, samples=request.samples, generate=request.answers)
        return
    from training.config_file import load_train_config
    from training.run import train

    config = load_train_config(request.preset, request.config, list(request.overrides))
    for stage in request.stages:
        report_line = _line_reporter(pipes, stage, getattr(config, stage).steps) if pipes else None
        for result in train(request.release, [stage], config, Path(request.output), on_line=report_line):
            if result.stopped == "signal":
                raise DataError(
                    f"{stage}: stopped by a signal at step {result.steps:,}; its checkpoint is {result.checkpoint}. "
                    "Remedy: materialise it again; it resumes from there."
                )


def _line_reporter(pipes: PipesContext, stage: str, steps: int) -> Callable[[Mapping[str, Any]], None]:
    """A function that writes lines of the training log to the log of the run.

    It writes every validation. Of the steps it writes one a second at first, and later one whenever a hundredth of the
    elapsed time has passed. The log of a run is a database: a day of training adds about eight hundred rows to it.
    """
    began_at = time.monotonic()
    due_at = began_at

    def report_line(line: Mapping[str, Any]) -> None:
        nonlocal due_at
        now = time.monotonic()
        if line["kind"] == "train":
            if now < due_at and line["step"] < steps:
                return
            due_at = now + max(1.0, (now - began_at) / 100)
        pipes.log.info(step_text(stage, line, steps))

    return report_line


def _end_with_the_parent() -> None:
    """Write a checkpoint and stop when the process of the Dagster run has died; else its retry would train beside us.

    The parent holds the other end of our standard input. It is closed however the parent dies.
    """
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Request.from_json(sys.argv[1])))
