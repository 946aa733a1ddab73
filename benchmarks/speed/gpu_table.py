"""The table of `python -m benchmarks.training --gpu`: each row in a process of its own, all in ten minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness import cores
from benchmarks.speed.gpu_tasks import SAMPLES, TINY_SAMPLES, Task, tasks
from benchmarks.speed.release import write_release
from benchmarks.speed.sizes import Speed

TARGET_MFU, TARGET_TOKENS, TARGET_WAIT = 0.40, 90_000, 0.05
"""On one H200. They are set against our side on a GPU only."""

BUDGET_S = 580.0
MIN_LEFT_S = 20.0  # a row is not begun with less
_COLUMNS = ("what", "who", "speed", "MFU", "data wait", "goal", "seconds")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of the table: its speed, or the reason why there is none."""

    name: str
    side: str
    seconds: float
    speed: Speed | None = None
    reason: str | None = None
    is_failure: bool = False


def run_table(device: str, tiny: bool, json_path: Path | None) -> int:
    """Run all rows and print them as they come, then as a Markdown table.

    Returns: 1 if a row failed, else 0. Missed goals are no failures.
    """
    import torch

    begun = time.monotonic()
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mmdata-gpu-") as name:
        folder = Path(name)
        write_release(folder / "workspace", TINY_SAMPLES if tiny else SAMPLES, 4 if tiny else 64)
        for task in tasks(device, tiny, max(1, cores() - 2), gpus):
            outcomes.append(run_task(task, folder, begun + BUDGET_S - time.monotonic()))
            _say(" | ".join(cells(outcomes[-1], outcomes)))
    _say(f"\n{torch.cuda.get_device_name() if gpus else 'CPU'}, {cores()} cores, {time.monotonic() - begun:.0f} s\n")
    _say("\n".join(f"| {' | '.join(row)} |" for row in (_COLUMNS, ("---",) * len(_COLUMNS))))
    for outcome in outcomes:
        _say(f"| {' | '.join(cells(outcome, outcomes))} |")
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1), encoding="utf-8")
    return int(any(outcome.is_failure for outcome in outcomes))


def run_task(task: Task, folder: Path, left_s: float) -> Outcome:
    """Run a row in a process of its own, which ends with all its children at its limit.

    Args:
        folder: with the workspace of the release.
        left_s: seconds that are left for all rows.
    """
    if task.missing is not None:
        return Outcome(task.name, task.side, 0.0, reason=task.missing)
    if left_s < MIN_LEFT_S:
        return Outcome(task.name, task.side, 0.0, reason=f"not run: the {BUDGET_S:.0f} s are used up")
    begun = time.monotonic()
    described, out, errors = folder / "task.json", folder / "speed.json", folder / "stderr.txt"
    task.write(described)
    out.unlink(missing_ok=True)
    python = [sys.executable, "-m"]
    if task.processes:
        python += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(task.processes), "-m"]
    command = [*python, "benchmarks.speed.gpu_row", str(described), str(folder / "workspace"), str(out)]
    with errors.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
        limit_s = min(task.limit_s, left_s)
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _kill_group(process)
    seconds = time.monotonic() - begun
    if status == 0 and out.exists():
        return Outcome(task.name, task.side, seconds, Speed.read(str(out)))
    reason = f"ended after {limit_s:.0f} s" if status is None else f"failed: {_last_error(errors.read_text())}"
    return Outcome(task.name, task.side, seconds, reason=reason, is_failure=True)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the readers of a process that died go with it
    process.wait()


def _last_error(text: str) -> str:
    """The last line that looks like an exception, of torchrun's worker if it is there."""
    lines = [line.split("]:", 1)[-1].strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] and " " not in line.split(":")[0]]
    row_errors = [line for line in errors if "ChildFailedError" not in line]
    return next(reversed(row_errors or errors or lines), "no message")[:200]


def cells(outcome: Outcome, outcomes: list[Outcome]) -> list[str]:
    """A row as text. A peer's MFU follows from ours, because it trains the same model."""
    start = [outcome.name, outcome.side]
    seconds = f"{outcome.seconds:.0f}"
    if outcome.speed is None:
        return [*start, outcome.reason or "", "", "", "", seconds]
    speed = outcome.speed
    rate = speed.work / speed.seconds
    if outcome.side == "smoke":
        return [*start, f"ran {speed.work:.0f} steps", "", "", "", seconds]
    is_joint = outcome.name.startswith("joint")
    mfu = speed.mfu
    if outcome.side == "open_clip":
        ours = next((o.speed for o in outcomes if o.name == outcome.name and o.side == "ours"), None)
        mfu = None if ours is None or ours.mfu is None else ours.mfu * rate / (ours.work / ours.seconds)
    return [
        *start,
        f"{rate:,.0f} {'tokens' if is_joint else 'samples'}/s",
        "" if mfu is None else f"{mfu:.1%}",
        "" if speed.data_wait is None else f"{speed.data_wait:.1%}",
        "; ".join(_goals(outcome, rate)) if outcome.side == "ours" else "",
        seconds,
    ]


def _goals(outcome: Outcome, rate: float) -> list[str]:
    """Our goals for a row, and whether it met them."""
    assert outcome.speed is not None
    mfu, wait = outcome.speed.mfu, outcome.speed.data_wait
    goals = []
    if "B/32" in outcome.name:
        goals.append((f"MFU {TARGET_MFU:.0%}", mfu is not None and mfu >= TARGET_MFU))
    if outcome.name.startswith("joint"):
        goals.append((f"{TARGET_TOKENS:,} tokens/s", rate >= TARGET_TOKENS))
    goals.append((f"wait under {TARGET_WAIT:.0%}", wait is not None and wait < TARGET_WAIT))
    return [f"{goal}: {'met' if is_met else 'missed'}" for goal, is_met in goals]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
