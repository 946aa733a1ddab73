"""Ends a run that hangs, and names the rank, or the worker of its loader, that the others wait for."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdata.errors import DataError

CHECKS = 10  # in the time after which a run hangs
LONGEST_CHECK_S = 5.0
GRACE_S = 5.0  # for the main thread to end the run with an error; it cannot while it is inside a collective


class Watchdog:
    """Watches the ranks of a run while it is entered.

    Each rank counts its beats, which come in the same order on all ranks, and a thread of it writes the count into
    the folder. If a rank's count stays for `hang_s`, each rank writes the stacks of its threads beside it and ends with
    an error. The ranks with the fewest beats are those that the others wait for.

    Args:
        folder: on a disk that all ranks share.
        hang_s: None: nothing is watched.
        workers: reading processes of this rank's loader.
    """

    def __init__(self, folder: Path, rank: int, world: int, hang_s: float | None, workers: int = 0) -> None:
        self._folder, self._rank, self._world, self._hang_s = folder, rank, world, hang_s
        self._count, self._doing, self._error = 0, "starting", ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self.busy_workers: Tensor = torch.zeros(workers, 2, dtype=torch.float64).share_memory_()
        """For each worker of the loader: since when it reads (by the monotonic clock; 0: it does not), and its id."""

    def beat(self, doing: str) -> None:
        """Say what comes next. All ranks call this equally often. Nothing is written here, and nobody is waited for."""
        self._doing, self._count = doing, self._count + 1

    def __enter__(self) -> Watchdog:
        if self._hang_s is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write()
            with suppress(ValueError):  # only the main thread can handle signals
                self._previous = signal.signal(signal.SIGUSR2, self._raise)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._hang_s is not None:
            self._thread.join()
            with suppress(ValueError, AttributeError):
                signal.signal(signal.SIGUSR2, self._previous)
            self._state_file(self._rank).unlink(missing_ok=True)
            with suppress(OSError):  # stacks, or files of other ranks, are in it
                self._folder.rmdir()

    def _watch(self) -> None:
        assert self._hang_s is not None
        every_s = min(LONGEST_CHECK_S, self._hang_s / CHECKS)
        seen: dict[int, tuple[int, float]] = {}  # by rank: its count, and when this process saw it first
        states: dict[int, dict[str, Any]] = {}
        while not self._ended.wait(every_s):
            self._write()
            now = time.monotonic()
            for rank in range(self._world):
                with suppress(OSError, ValueError):  # a rank that has not begun, or has ended, is not there
                    states[rank] = json.loads(self._state_file(rank).read_text())
                state = states.setdefault(rank, {"count": 0, "doing": "starting", "workers": ""})
                if seen.get(rank, (-1, 0.0))[0] != state["count"]:
                    seen[rank] = (state["count"], now)
            still_s = {rank: now - since for rank, (_, since) in seen.items()}
            if max(still_s.values()) >= self._hang_s:
                self._end(states, still_s, every_s)
                return

    def _end(self, states: dict[int, dict[str, Any]], still_s: dict[int, float], every_s: float) -> None:
        """Write the stacks, and end the run with an error in this process's main thread, or without it."""
        stacks = self._folder / f"rank-{self._rank:05d}.stacks.txt"
        with stacks.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        behind = min(state["count"] for state in states.values())
        late = [rank for rank, state in states.items() if state["count"] == behind]
        said = []
        for rank in late[:4]:
            workers = f" ({states[rank]['workers']})" if states[rank]["workers"] else ""
            said.append(f"rank {rank} has not moved for {still_s[rank]:.0f} s: {states[rank]['doing']}{workers}")
        if len(late) == self._world > 1:
            said.append("all ranks are there, so look at their stacks")
        elif self._world > len(late):
            said.append(f"{self._world - len(late)} of {self._world} ranks wait for it")
        self._error = (
            f"the run hangs: {'; '.join(said)}. The stacks of each rank that still answers are in {self._folder}. "
            "Remedy: mend what they show, then the same command again, which resumes; or a larger hang_s."
        )
        time.sleep(2 * every_s)  # the other ranks write their stacks too, before one that ends takes them with it
        for _, since, pid in self._readers():  # a worker that hangs would outlive this process, or keep it from ending
            if time.monotonic() - since > (self._hang_s or 0) / 2:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, ValueError):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
        if not self._ended.wait(GRACE_S):
            sys.stderr.write(f"error: {self._error}\n")
            sys.stderr.flush()
            os._exit(1)

    def _raise(self, _number: int, _frame: Any) -> None:
        raise DataError(self._error or "the watchdog got a signal from elsewhere (SIGUSR2)")

    def _write(self) -> None:
        state = {"count": self._count, "doing": self._doing, "workers": self._workers_reading()}
        draft = self._state_file(self._rank).with_suffix(".tmp")
        with suppress(OSError):  # a full disk must not end the watch
            draft.write_text(json.dumps(state))
            draft.replace(self._state_file(self._rank))

    def _workers_reading(self) -> str:
        now = time.monotonic()
        longest = sorted(self._readers(), key=lambda worker: worker[1])[:4]
        return ", ".join(f"worker {at}, process {pid}, reads for {now - since:.0f} s" for at, since, pid in longest)

    def _readers(self) -> list[tuple[int, float, int]]:
        """Workers that read: their number, since when, and their process."""
        return [(at, since, int(pid)) for at, (since, pid) in enumerate(self.busy_workers.tolist()) if since]

    def _state_file(self, rank: int) -> Path:
        return self._folder / f"rank-{rank:05d}.json"
