"""Lists of ids that a source keeps or leaves out: DataComp's `.npy`, a text file, or a column of a Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mmdata.errors import UserError

WORDS = np.dtype("u8,u8")
"""An id as two 64-bit words, as DataComp's resharder reads them: the halves of 32 hex digits."""


class IdList:
    """A sorted list of ids, which may stay on the disk: a look-up reads about 30 places of it."""

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
    """Read a list once for each state of its file. A sorted `.npy` is mapped into memory, not read.

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
def _read(path: str, column: str, _state: tuple[int, int]) -> IdList:
    if path.endswith(".npy"):
        words = np.load(path, mmap_mode="r", allow_pickle=False)
        if words.dtype != WORDS or words.ndim != 1:
            raise ValueError(f"its dtype is {words.dtype}")
        return IdList(words if _is_sorted(words) else np.sort(words))
    if path.endswith(".parquet"):
        ids: Iterable[object] = pq.read_table(path, columns=[column])[column].drop_null().to_pylist()
    else:
        ids = filter(None, (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()))
    return IdList(np.unique(id_words(ids)))


def _is_sorted(words: np.ndarray, block: int = 1 << 20) -> bool:
    for start in range(0, len(words), block):
        high, low = (words[name][start : start + block + 1] for name in ("f0", "f1"))
        in_order = (high[:-1] < high[1:]) | ((high[:-1] == high[1:]) & (low[:-1] <= low[1:]))
        if not in_order.all():
            return False
    return True
