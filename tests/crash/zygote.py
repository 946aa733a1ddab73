"""A process that has imported everything, and forks a life for each command: a build that costs no start-up.

It must never run what it imports: Polars, Arrow and torch start threads, and threads do not survive a fork.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Order:
    """One life.

    Args:
        config: corpus.yaml.
        work: a name in `road.WORK`.
        watched: the folder whose steps count.
        backups: where what a power cut undoes is kept.
        at: the step to die at; 0: none.
        power_seed: the power goes with it.
        after_s: seconds after which it is killed, wherever it is; 0: never.
        full_at: the step from which on the disk is full; 0: never.
        pause_s: it is not killed then, but stopped for so many seconds.
    """

    config: str
    work: str
    watched: str
    backups: str
    at: int = 0
    power_seed: int | None = None
    after_s: float = 0.0
    pause_s: float = 0.0
    full_at: int = 0


@dataclass(frozen=True)
class Life:
    """How a life ended.

    Args:
        end: `done`, `killed`, or the error that it died of.
        step: the step that it would have taken next; of a death at a step.
        steps: how many it took; of a life that ended well.
        broken_promises: files that got their final names before they were synced.
    """

    end: str
    step: str = ""
    steps: int = 0
    broken_promises: tuple[str, ...] = ()


class Zygote:
    """Start it with `with`, and ask it for lives."""

    def __enter__(self) -> Zygote:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def live(self, order: Order) -> Life:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Life(**{**answer, "broken_promises": tuple(answer["broken_promises"])})


def main() -> None:
    """Read orders from stdin, a line each; answer each with how the life ended."""
    from mmdata.config import Download
    from mmdata.download import images
    from mmdata.score import languages, stage
    from tests.crash import road

    for name in ("faiss", "matplotlib.ft2font", "mmdata.media.faces", "torch"):
        importlib.import_module(name)  # so that no life has to
    images.load_img2dataset(Download())
    languages._model()
    scorer = road.CheapScorer()
    stage.load_scorer = lambda score, beside=0: scorer  # type: ignore[assignment, return-value]
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a life prints
    with os.fdopen(out, "w") as answers:
        for line in sys.stdin:
            answers.write(json.dumps(_live(Order(**json.loads(line)))) + "\n")
            answers.flush()


def _live(order: Order) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work(order, writer)
    os.close(writer)
    if order.after_s:
        time.sleep(order.after_s)
        if order.pause_s:
            os.kill(child, signal.SIGSTOP)
            time.sleep(order.pause_s)
        os.kill(child, signal.SIGCONT if order.pause_s else signal.SIGKILL)
    with os.fdopen(reader) as told:
        lines = told.read().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return asdict(Life("killed", lines[-1] if lines else "at a random time"))
    return json.loads(lines[-1]) if lines else asdict(Life(f"exit {status}"))


def _work(order: Order, writer: int) -> None:
    """Runs in the fork, which ends here."""
    from tests.crash import road
    from tests.crash.faults import Death, Disk

    disk = Disk(Path(order.watched), None if order.power_seed is None else Path(order.backups))
    death = Death(disk, order.at, order.power_seed, lambda what: os.write(writer, f"{what}\n".encode()) and None)
    death.full_at = order.full_at
    death.install()
    try:
        road.WORK[order.work](Path(order.config))
        life = Life("done", steps=death.steps, broken_promises=tuple(disk.broken_promises))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to see it
        frame = traceback.extract_tb(error.__traceback__)[-1]
        life = Life(f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
    os.write(writer, json.dumps(asdict(life)).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
