"""Finds the samples of a split by uid and copy: rows sorted by uid, sorted once, memory-mapped by every process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from training.data.index_cache import build_once, mark_complete


class UidIndex:
    """Row numbers by uid and copy.

    Args:
        samples: rows of `sample_index.SAMPLE`.
        folder: where the index is, or is made: 16 bytes a sample there, and 24 in memory while it is sorted.
    """

    def __init__(self, samples: np.ndarray, folder: Path) -> None:
        build_once(folder, lambda draft: _write(samples, draft))
        self._samples = samples
        self._high, self._rows = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("high", "rows"))

    def find(self, keys: pl.DataFrame) -> np.ndarray:
        """Row numbers of samples: int64, -1 for a sample that is not in the index.

        Args: keys: columns high, low (UInt64) and copy (UInt16).
        """
        by_uid = np.argsort(keys["high"].to_numpy())  # neighbours lie on the same pages
        high, low, copy = (keys[name].to_numpy()[by_uid] for name in ("high", "low", "copy"))
        rows = np.full(len(keys), -1, np.int64)
        sought, at = np.arange(len(keys)), np.searchsorted(self._high, high)
        while len(sought):  # once for each copy of the most copied uid
            sought = sought[at[sought] < len(self._high)]
            sought = sought[self._high[at[sought]] == high[sought]]
            candidates = self._rows[at[sought]]
            samples = self._samples[candidates]
            is_found = (samples["low"] == low[sought]) & (samples["copy"] == copy[sought])
            rows[by_uid[sought[is_found]]] = candidates[is_found]
            sought = sought[~is_found]
            at[sought] += 1
        return rows


def _write(samples: np.ndarray, folder: Path) -> None:
    high = np.ascontiguousarray(samples["high"])
    rows = np.argsort(high, kind="stable")
    np.save(folder / "rows.npy", rows)
    np.save(folder / "high.npy", high[rows])
    mark_complete(folder, {"samples": len(rows)})
