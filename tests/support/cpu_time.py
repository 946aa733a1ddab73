"""CPU time of a piece of work, without what the rest of a long test process adds to it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def least_cpu_s(work: Callable[[], object], tries: int = 3) -> float:
    """The least of some tries, in seconds. Python collects no garbage meanwhile: that grows with the process."""
    gc.collect()
    gc.disable()
    try:
        return min(_cpu_s(work) for _ in range(tries))
    finally:
        gc.enable()


def _cpu_s(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s
