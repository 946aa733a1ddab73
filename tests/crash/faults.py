"""Faults put into a process from below: it dies at its n-th durable step, and what was not synced is lost with it.

A step is what changes a disk: a file opened for writing, a rename, a deletion, a new folder, an fsync. Python announces
all but the last to audit hooks, whoever does them, so nothing of mmdata is patched. What Arrow writes from C++ is not
seen; such files have temporary names, and deaths at random times fall into them.

After a power cut the disk may hold less than the process saw: a file not synced may be cut short, a rename or a
deletion whose folder was not synced may not have happened. `Disk` keeps what it takes to undo them.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR
STEPS = {"os.rename": "rename", "os.remove": "delete", "os.mkdir": "mkdir", "os.rmdir": "rmdir"}


@dataclass
class Disk:
    """What would be lost of a folder if the power went now.

    Args:
        folder: what lies under it is watched.
        backups: a folder outside of it, on the same disk; None: the power stays, and nothing is kept.
        unsynced: files that were written and not synced since.
        pending: folder, and what undoes a rename or deletion in it that was not synced since; in order.
        broken_promises: final names that were given to files which had not been synced.
    """

    folder: Path
    backups: Path | None
    unsynced: dict[Path, None] = field(default_factory=dict)
    pending: list[tuple[Path, Callable[[], None]]] = field(default_factory=list)
    broken_promises: list[str] = field(default_factory=list)

    def opened(self, path: Path) -> None:
        self.unsynced[path] = None

    def renamed(self, source: Path, target: Path) -> None:
        if source in self.unsynced:
            self.broken_promises.append(str(target))
        self.unsynced.pop(source, None)
        backup = self._backup(target)

        def undo() -> None:
            if target.exists():
                target.rename(source)
            if backup is not None:
                backup.rename(target)

        self.pending.append((target.parent, undo))

    def deleted(self, path: Path) -> None:
        self.unsynced.pop(path, None)
        backup = self._backup(path)
        if backup is None:
            return

        def undo() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)  # it may have gone, too
            backup.rename(path)

        self.pending.append((path.parent, undo))

    def synced(self, path: Path) -> None:
        self.unsynced.pop(path, None)
        self.pending = [one for one in self.pending if one[0] != path]

    def lose(self, seed: int) -> None:
        """The power goes: every file that was not synced is cut short, and some of what was pending is undone."""
        numbers = random.Random(seed)
        for path in list(self.unsynced):
            if path.is_file():
                os.truncate(path, int(path.stat().st_size * numbers.random()))
        for _, undo in reversed(list(self.pending)):
            if numbers.random() < 0.5:
                undo()

    def _backup(self, path: Path) -> Path | None:
        if self.backups is None or not path.is_file():
            return None
        self.backups.mkdir(parents=True, exist_ok=True)
        backup = self.backups / f"{len(self.pending)}-{random.getrandbits(64):x}"
        backup.hardlink_to(path)
        return backup


@dataclass
class Death:
    """Kills this process at a step.

    Args:
        disk: of the folder whose steps count.
        at: the step before which the process dies, counted from 1; 0: it lives, and its steps are counted.
        power_seed: the power goes with it; None: only the process dies.
        tell: called with what the last step would have been.
        full_at: the step from which on the disk is full: nothing is written, made or synced; 0: never.
    """

    disk: Disk
    at: int
    power_seed: int | None
    tell: Callable[[str], None]
    steps: int = 0
    full_at: int = 0
    _busy: bool = False

    def install(self) -> None:
        """From now on. It can't be undone: use it in a process of its own."""
        sys.addaudithook(self._hear)
        real = os.fsync

        def fsync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            path = Path(f"/proc/self/fd/{number}").readlink()
            if self._is_watched(path):
                self._step(f"fsync {path}")
            real(handle)
            self.disk.synced(path)

        os.fsync = fsync

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or (event != "open" and event not in STEPS) or not isinstance(arguments[0], str | os.PathLike):
            return
        self._busy = True
        try:
            path = Path(arguments[0])
            if not self._is_watched(path):
                return
            if event == "open":
                if arguments[2] & WRITING:
                    self._step(f"write {path}")
                    self.disk.opened(path)
            elif event == "os.rename":
                target = Path(arguments[1])
                self._step(f"rename {target}")
                self.disk.renamed(path, target)
            else:
                self._step(f"{STEPS[event]} {path}")
                if event == "os.remove":
                    self.disk.deleted(path)
        finally:
            self._busy = False

    def _is_watched(self, path: Path) -> bool:
        return path.is_relative_to(self.disk.folder) and path != self.disk.folder

    def _step(self, what: str) -> None:
        self.steps += 1
        if 0 < self.full_at <= self.steps and what.split(maxsplit=1)[0] in ("write", "mkdir", "fsync"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what.partition(" ")[2])
        if self.steps != self.at:
            return
        self._busy = True
        self.tell(what)
        if self.power_seed is not None:
            self.disk.lose(self.power_seed)
        os.kill(os.getpid(), signal.SIGKILL)
