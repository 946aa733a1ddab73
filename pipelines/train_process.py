"""The child of a training asset: trains a stage, or evaluates the trained ones, and tells Dagster through Pipes.

Started by pipelines.launch as `python -m pipelines.train_process REQUEST`, or so under torchrun, where rank 0 speaks.
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
    """What the child shall do.

    Args:
        stages: of `train` one after the other; of `evaluate` those whose models are measured.
        release: the release's folder.
        output: the models' folder, holding a folder a stage.
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
    """Do what is asked; exit codes as of the command line: 0 done, 1 data, 2 user error."""
    if PipesEnvVarParamsLoader().is_dagster_pipes_process():
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
    rank = int(os.environ.get("RANK", "0"))
    with nullcontext() if rank else open_dagster_pipes() as pipes:
        try:
            _work(request, pipes)
        except Exception as error:
            ours = isinstance(error, MMDataError)
            said = str(error) if ours else f"{type(error).__name__}: {error}"
            voice = pipes or open_dagster_pipes()  # a rank is silent but for what ends the run
            voice.report_custom_message({"error": f"rank {rank}: {said}" if rank else said, "expected": ours})
            if not ours:
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
    from training.config import load_train_config
    from training.run import train

    config = load_train_config(request.preset, request.config, list(request.overrides))
    for stage in request.stages:
        speak = _speaker(pipes, stage, getattr(config, stage).steps) if pipes else None
        for result in train(request.release, [stage], config, Path(request.output), on_line=speak):
            if result.stopped == "signal":
                raise DataError(
                    f"{stage}: stopped by a signal at step {result.steps:,}; its checkpoint is {result.checkpoint}. "
                    "Materialise it again, and it goes on from there."
                )


def _speaker(pipes: PipesContext, stage: str, steps: int) -> Callable[[Mapping[str, Any]], None]:
    """Log lines as they come: each validation, and a step a second at first, later one each hundredth of the time gone.

    A run's log is a database: a day of training makes about eight hundred rows of it.
    """
    begun = time.monotonic()
    due = begun

    def speak(line: Mapping[str, Any]) -> None:
        nonlocal due
        now = time.monotonic()
        if line["kind"] == "train":
            if now < due and line["step"] < steps:
                return
            due = now + max(1.0, (now - begun) / 100)
        pipes.log.info(step_text(stage, line, steps))

    return speak


def _end_with_the_parent() -> None:
    """Stop in good order, with a checkpoint, when the Dagster run has died: a run tried again would find us at work.

    Its end of our standard input closes with it, however it dies.
    """
    while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Request.from_json(sys.argv[1])))
