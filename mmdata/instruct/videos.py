"""Groups the clips of a split by video, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True, slots=True)
class Videos:
    """The clips of a split, by video and time.

    Args:
        order: int64 (m,): rows of the split's frame that are clips with times, by video, start, end and uid.
        place: int64 (n,): position of a row in `order`; -1 if it is no such clip.
        start, stop: int64 (m,): where in `order` the clips of the same video begin and end.
        heard: int64 (k,): rows of clips that are stored with their own sound.
    """

    order: np.ndarray
    place: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    heard: np.ndarray

    def clips(self, at: int) -> np.ndarray:
        """Rows of all clips of the same video as row `at`, in order; empty if it is no clip."""
        place = int(self.place[at])
        return self.order[self.start[place] : self.stop[place]] if place >= 0 else self.order[:0]

    def before(self, at: int, most: int) -> np.ndarray:
        """Rows of the at most `most` clips directly before row `at` in its video, in order."""
        place = int(self.place[at])
        return self.order[max(int(self.start[place]), place - most) : place] if place >= 0 else self.order[:0]


def videos_of(frame: pl.DataFrame) -> Videos:
    """Group a split's clips.

    Args:
        frame: kind, url, start_s, end_s, exts, synthetic; in uid order.
    """
    clips = frame.with_row_index("at").filter(
        (pl.col("kind") == "video") & pl.col("url").is_not_null() & pl.col("start_s").is_not_null()
    )
    clips = clips.sort("url", "start_s", "end_s", "at")
    order = clips["at"].cast(pl.Int64).to_numpy()
    place = np.full(len(frame), -1, np.int64)
    place[order] = np.arange(len(order))
    begins = np.flatnonzero((clips["url"] != clips["url"].shift(1)).fill_null(value=True).to_numpy())
    ends = np.append(begins[1:], len(order)) if len(begins) else begins
    sizes = ends - begins
    own_sound = pl.col("exts").list.contains("flac") & pl.col("synthetic").is_null() & (pl.col("kind") == "video")
    heard = frame.select(own_sound.fill_null(value=False)).to_series().arg_true().cast(pl.Int64).to_numpy()
    return Videos(order, place, np.repeat(begins, sizes), np.repeat(ends, sizes), heard)
