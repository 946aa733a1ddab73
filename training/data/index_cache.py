"""Local folders of memory-mapped tables, made once and then read by every process of a run."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, BaseFileLock, FileLock, Timeout

WAIT_S = 60.0  # between two words about a process that is waited for
_log = logging.getLogger(__name__)
_DONE = "done.json"  # written last; what it holds is read by `read_mark`


class RowTable:
    """A structured array that is written row by row, in a `with` block, to a .npy file that can be memory-mapped.

    A .npy file begins with its length, so rows go to a plain file first.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._path, self._dtype, self._plain = path, dtype, path.with_suffix(".rows")
        self._file = self._plain.open("wb")
        self.count = 0

    def __enter__(self) -> RowTable:
        return self

    def append(self, rows: np.ndarray) -> None:
        rows.tofile(self._file)
        self.count += len(rows)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if error is None:
            table = np.lib.format.open_memmap(self._path, "w+", self._dtype, (self.count,))
            if self.count:
                table[:] = np.memmap(self._plain, self._dtype, "r")
            table.flush()
            self._plain.unlink()


def publish_folder(target: Path, fill: Callable[[Path], Any]) -> None:
    """Fill a folder under a temporary name and rename it. Of two writers the first wins.

    Args: fill: writes the files, and then calls `mark_complete`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=_draft_prefix(target), dir=target.parent))
    try:
        fill(draft)
        draft.rename(target)
    except OSError:
        if not is_complete(target):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def build_once(target: Path, fill: Callable[[Path], Any]) -> None:
    """Fill a folder in one process of those that want it; the others wait until it is there.

    If that process dies, its lock ends with it: one of the others begins anew, and meets the same error if there is
    one. Where the disk's locks do not reach other machines, one process of each machine fills it, and the first wins.

    Args: fill: as of `publish_folder`.
    """
    if is_complete(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _waited_for(FileLock(target.parent / f".{target.name}.lock"), target):
        if not is_complete(target):
            for draft in target.parent.glob(f"{_draft_prefix(target)}*"):  # of a process that died
                shutil.rmtree(draft, ignore_errors=True)
            publish_folder(target, fill)


def _waited_for(lock: BaseFileLock, target: Path) -> AcquireReturnProxy[BaseFileLock]:
    """The lock, acquired; the log says where that takes long."""
    while True:
        try:
            return lock.acquire(timeout=WAIT_S)
        except Timeout:
            _log.warning("%s: another process writes it; waited %d s more", target, WAIT_S)


def _draft_prefix(target: Path) -> str:
    return f".tmp-{target.name}-{socket.gethostname()}-"


def mark_complete(folder: Path, counts: Mapping[str, int]) -> None:
    """Say that a folder has all its files."""
    (folder / _DONE).write_text(json.dumps(counts))


def is_complete(folder: Path) -> bool:
    """Whether an index was written to its end."""
    return (folder / _DONE).exists()


def read_mark(folder: Path) -> dict[str, int]:
    """The counts that `mark_complete` was given."""
    return dict(json.loads((folder / _DONE).read_text()))
