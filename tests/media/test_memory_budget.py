"""Threads wait for each other's memory, and nothing waits for ever."""

from __future__ import annotations

import threading
import time

from mmdata.media.memory_budget import MemoryBudget


def test_more_than_fits_waits_and_the_largest_is_let_in_alone():
    budget = MemoryBudget(100)
    held, most, lock = [0], [0], threading.Lock()

    def work(needed_bytes: int) -> None:
        with budget.reserved(needed_bytes):
            with lock:
                held[0] += needed_bytes
                most[0] = max(most[0], held[0])
            time.sleep(0.01)
            with lock:
                held[0] -= needed_bytes

    threads = [threading.Thread(target=work, args=(needed,)) for needed in (40, 40, 40, 100, 7, 60, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert held == [0]
    assert 40 < most[0] <= 100
    with budget.reserved(10_000):
        pass
