"""Measure functions in child processes, ours and the peer's in turn, and print one row a comparison."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run of one side.

    Args:
        wall_s, cpu_s: elapsed and processor seconds of the measured block, children included in the latter.
        peak_mib: largest resident set of the process during its life, imports included.
        work: how much was done (images, rows, bytes), as the function returned it.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    work: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the benchmark table.

    Args:
        ours, peer: rates in `unit`, higher is better; for seconds, `lower_is_better` is set.
        goal: the ratio aimed at, or None where there is none.
        note: what was compared, in a few words.
    """

    name: str
    unit: str
    ours: float
    peer: float
    ours_peak_mib: float
    peer_peak_mib: float
    goal: float | None = None
    lower_is_better: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times better we are: above 1 we win."""
        return self.peer / self.ours if self.lower_is_better else self.ours / self.peer


def measure(function: Callable[..., float], *args: Any) -> Run:
    """Run a function in a fresh process and measure it.

    Args:
        function: a module's function, so that it can be pickled; returns how much work it did. It may call
            `start_clock()` when its set-up is over; what came before does not count towards the time.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__}: the measured process died") from None
    finally:
        process.join()


def compare(
    name: str,
    unit: str,
    ours: Callable[[], Run],
    peer: Callable[[], Run],
    *,
    rounds: int = 3,
    goal: float | None = None,
    note: str = "",
) -> Row:
    """Run both in turn, A B A B …, and compare the medians of their rates (work a second)."""
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return Row(
        name,
        unit,
        ours=statistics.median(a.work / a.wall_s for a, _ in pairs),
        peer=statistics.median(b.work / b.wall_s for _, b in pairs),
        ours_peak_mib=max(a.peak_mib for a, _ in pairs),
        peer_peak_mib=max(b.peak_mib for _, b in pairs),
        goal=goal,
        note=note,
    )


_OWN_START_METHOD = get_all_start_methods()[0]  # the platform's default
_clock: list[tuple[float, float]] = []


def start_clock() -> None:
    """Call within a measured function when its set-up is over."""
    _clock.append((time.perf_counter(), _cpu_s()))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _own_peak_kib() -> int:
    # Not ru_maxrss: a process starts with its parent's. VmHWM is Linux alone.
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _measured(sender: Any, function: Callable[..., float], args: tuple[Any, ...]) -> None:
    # A spawned process would spawn its own children too, each importing all anew: not as in a program of its own.
    set_start_method(_OWN_START_METHOD, force=True)
    start_clock()
    work = function(*args)
    wall, cpu = _clock[-1]
    peak = max(_own_peak_kib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    sender.send(Run(time.perf_counter() - wall, _cpu_s() - cpu, peak / 1024, work))
