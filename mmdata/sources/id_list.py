"""Lists of ids that a source keeps or leaves out: DataComp's `.npy`, a text file, or a column of a Parquet file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from filelock import FileLock

from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint

WORDS = np.dtype("u8,u8")
"""An id as two 64-bit words, as DataComp's resharder reads them: the halves of 32 hex digits."""

BLOCK_IDS = 100_000  # as text in memory at a time


class IdList:
    """A sorted list of ids, which stays on the disk: a look-up reads about 30 places of it."""

    def __init__(self, words: np.ndarray) -> None:
        """Args: words: of dtype `u8,u8`, sorted."""
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def contains(self, ids: Iterable[object]) -> np.ndarray:
        """Whether each id is in the list: bool N."""
        wanted = id_words(ids)
        high, low = wanted["f0"], wanted["f1"]
        start, stop = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(self._words), np.int64)
        while (start < stop).any():
            middle = (start + stop) // 2
            found = self._words[np.minimum(middle, len(self._words) - 1)]
            is_less = (found["f0"] < high) | ((found["f0"] == high) & (found["f1"] < low))
            is_open = start < stop
            start = np.where(is_open & is_less, middle + 1, start)
            stop = np.where(is_open & ~is_less, middle, stop)
        if not len(self._words):
            return np.zeros(len(wanted), bool)
        found = self._words[np.minimum(start, len(self._words) - 1)]
        return (start < len(self._words)) & (found["f0"] == high) & (found["f1"] == low)


def id_words(ids: Iterable[object]) -> np.ndarray:
    """Ids as words: 32 hex digits as they are (DataComp's uids), any other text or number by a 128-bit BLAKE2b."""
    texts = [str(value) for value in ids]
    return np.array([_words_of(text) for text in texts], WORDS) if texts else np.empty(0, WORDS)


def _words_of(text: str) -> tuple[int, int]:
    if len(text) == 32:
        try:
            return int(text[:16], 16), int(text[16:], 16)
        except ValueError:
            pass
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def read_id_list(path: str, column: str) -> IdList:
    """Map a list into memory: a sorted `.npy` itself, of any other file a sorted copy.

    The copy is made once for each state of the file, in the machine's folder of temporary files; all workers share it.

    Args:
        column: of a Parquet file.

    Raises:
        UserError: the file is missing, or is not a list of ids; names it.
    """
    try:
        facts = Path(path).stat()
        return _read(path, column, (facts.st_size, facts.st_mtime_ns))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: is not a list of ids ({error}). Remedy: give a .npy of dtype u8,u8 as DataComp's baselines write "
            f"it, a .txt with an id a line, or a .parquet with a column {column} (filter.id_column)."
        ) from error


@lru_cache(maxsize=8)
def _read(path: str, column: str, state: tuple[int, int]) -> IdList:
    if not path.endswith(".npy"):
        return IdList(_sorted_once([path, column, *state], lambda: _words_of_file(path, column)))
    words = np.load(path, mmap_mode="r", allow_pickle=False)
    if words.dtype != WORDS or words.ndim != 1:
        raise ValueError(f"its dtype is {words.dtype}")
    return IdList(words if _is_sorted(words) else _sorted_once([path, *state], lambda: np.array(words)))


def _sorted_once(key: list[Any], read: Callable[[], np.ndarray]) -> np.ndarray:
    """A list's words, sorted, mapped from a file that all processes of the machine share: the first one writes it."""
    folder = Path(tempfile.gettempdir()) / f"mmdata-ids-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise OSError(f"{folder} is of another user")
    file = folder / f"{fingerprint(*key)}.npy"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            words = read()
            words.sort()
            draft = file.with_suffix(".draft")
            with draft.open("wb") as out:
                np.save(out, words)
            draft.rename(file)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _words_of_file(path: str, column: str) -> np.ndarray:
    """The words of a text file or of a column. As text only `BLOCK_IDS` of them are in memory at a time."""
    blocks = _blocks_of_parquet(path, column) if path.endswith(".parquet") else _blocks_of_text(path)
    words = [id_words(block) for block in blocks]
    return np.concatenate(words) if words else np.empty(0, WORDS)


def _blocks_of_parquet(path: str, column: str) -> Iterator[list[object]]:
    with pq.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise KeyError(f"it has no column {column}")
        for batch in file.iter_batches(BLOCK_IDS, columns=[column]):
            yield batch.column(0).drop_null().to_pylist()


def _blocks_of_text(path: str) -> Iterator[list[str]]:
    with Path(path).open(encoding="utf-8") as lines:
        ids = filter(None, (line.strip() for line in lines))
        while block := list(islice(ids, BLOCK_IDS)):
            yield block


def _is_sorted(words: np.ndarray, block: int = 1 << 20) -> bool:
    for start in range(0, len(words), block):
        high, low = (words[name][start : start + block + 1] for name in ("f0", "f1"))
        in_order = (high[:-1] < high[1:]) | ((high[:-1] == high[1:]) & (low[:-1] <= low[1:]))
        if not in_order.all():
            return False
    return True
