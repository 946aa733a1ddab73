"""Measure functions in child processes, ours and the peer's in turn, and make a table row of each comparison."""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of one side.

    Args:
        wall_s, cpu_s: elapsed and processor seconds of the measured block, children included in the latter.
        peak_mib: largest resident set of the process during its life, imports included.
        work: how much was done (images, rows, bytes), as the measured function returned it.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    work: float


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the benchmark table.

    Args:
        ours, peer: rates in `unit`, higher is better; for seconds, `lower_is_better` is set.
        goal: the ratio that we aim at; None: there is no goal.
        note: the comparison in a few words.
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
        function: a function of a module, so that it can be pickled; returns how much work it did. It may call
            `start_clock()` when its set-up is over; the time before that does not count.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_and_send, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__}: the measured process died") from None
    finally:
        process.join()


def measure_in_empty_folder(function: Callable[..., float], *args: Any) -> Run:
    """`measure` with the path of an empty folder as the last argument; the folder is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as folder:
        return measure(function, *args, Path(folder))


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
    """Run both sides in turn, A B A B ..., and compare the medians of their rates (work per second)."""
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


_DEFAULT_START_METHOD = get_all_start_methods()[0]  # of this platform
_clock: list[tuple[float, float]] = []


def start_clock() -> None:
    """Start to count time; a measured function calls it when its set-up is over."""
    _clock.append((time.perf_counter(), _cpu_s()))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_kib() -> int:
    # not ru_maxrss: it begins with the parent's value; but VmHWM exists only on Linux
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _measure_and_send(sender: Any, function: Callable[..., float], args: tuple[Any, ...]) -> None:
    # a spawned process would spawn its children too, and each would import everything again, unlike in a normal program
    set_start_method(_DEFAULT_START_METHOD, force=True)
    start_clock()
    work = function(*args)
    wall_started, cpu_started = _clock[-1]
    peak = max(_peak_kib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    sender.send(Run(time.perf_counter() - wall_started, _cpu_s() - cpu_started, peak / 1024, work))
