"""Local folders of memory-mapped tables, made once and then read by every process of a run."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

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
    draft = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        fill(draft)
        draft.rename(target)
    except OSError:
        if not is_complete(target):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def mark_complete(folder: Path, counts: Mapping[str, int]) -> None:
    """Say that a folder has all its files."""
    (folder / _DONE).write_text(json.dumps(counts))


def is_complete(folder: Path) -> bool:
    """Whether an index was written to its end."""
    return (folder / _DONE).exists()


def read_mark(folder: Path) -> dict[str, int]:
    """The counts that `mark_complete` was given."""
    return dict(json.loads((folder / _DONE).read_text()))
