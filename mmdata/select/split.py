"""Splits into train and validation by cluster, or by file for clips, so that similar samples are in the same split."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.samples import hash_words, unit_interval

MIN_GROUPS = 20
"""With at least this many clusters kept, validation is never empty where it is asked for."""


def in_validation(
    frame: pl.DataFrame, fraction: float, seed: int, parent_draw: float | None = None
) -> tuple[np.ndarray, float | None]:
    """Which rows are held out.

    A clip or sound goes with its file, whatever its clusters: the clips of a video are in many, and would chain them
    all together until nothing could be held out. Another row goes with its cluster; without one, with its bytes, else
    alone. Groups that share a URL or the same bytes go together, and are held out only if each of them would be: a
    sample that was trained on once is never validated on later.

    Args:
        frame: the kept rows: cluster (Int32, null or negative: none), file, sha256 and url (UInt64 or null), uid_high
            and uid_low (UInt64).
        fraction: share of groups held out, by hash of the group.
        parent_draw: of the group that the parent release held out for want of one below the fraction. It stays the
            one while it is there: sizes change with every refresh, and another would have been trained on.

    Returns:
        bool, one a row; and the draw of the group that was held out for want of one below the fraction, or None.
    """
    if fraction <= 0 or frame.is_empty():
        return np.zeros(len(frame), bool), None
    group, draws = _groups(frame, seed)
    draws = _join_linked(group, draws, frame)
    row_draws = draws[group]
    held_out = row_draws < fraction
    if held_out.any():
        return held_out, None
    draw = _stand_in(row_draws) if parent_draw is None or not (row_draws == parent_draw).any() else parent_draw
    return row_draws == draw, draw


def _stand_in(row_draws: np.ndarray) -> float | None:
    """The lowest draw among groups no larger than the mean, so that no giant cluster becomes the validation set."""
    sizes = pl.DataFrame({"draw": row_draws}).group_by("draw").len()
    if len(sizes) < MIN_GROUPS:
        return None
    return float(sizes.filter(pl.col("len") <= pl.col("len").mean())["draw"].to_numpy().min())


def _groups(frame: pl.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The group number of each row, and the draw of each group."""
    nothing = pl.lit(0, pl.UInt64)
    filed = pl.col("file").is_not_null()
    clustered = ~filed & (pl.col("cluster") >= 0).fill_null(False)
    cluster = pl.col("cluster").fill_null(-1).cast(pl.Int64)
    keyed = frame.select(
        # Four kinds of key that cannot meet: (1, cluster), (3, file), (2, bytes), (4 + high, low).
        high=pl.when(clustered).then(nothing + 1).when(filed).then(nothing + 3)
        .when(pl.col("sha256").is_not_null()).then(nothing + 2)
        .otherwise(pl.col("uid_high") | pl.lit(1 << 63, pl.UInt64)),
        low=pl.when(clustered).then(cluster.clip(0).cast(pl.UInt64))
        .otherwise(pl.coalesce("file", "sha256", "uid_low")),
    )  # fmt: skip
    groups = keyed.unique().sort("high", "low").with_row_index("group")
    group = keyed.join(groups, on=["high", "low"], how="left", maintain_order="left")["group"].to_numpy()
    hashes = hash_words(groups["high"].to_numpy(), groups["low"].to_numpy(), seed, "split")
    return group, unit_interval(hashes)


def _join_linked(group: np.ndarray, draws: np.ndarray, frame: pl.DataFrame) -> np.ndarray:
    """Give linked groups the highest draw among them."""
    pair, other = [], []
    for name in ("url", "sha256"):
        linked = np.flatnonzero((frame[name].is_duplicated() & frame[name].is_not_null()).to_numpy())
        if len(linked):
            pairs = pl.DataFrame({"value": frame[name].gather(linked), "group": group[linked]})
            firsts = pairs.select(pl.col("group").first().over("value"))["group"].to_numpy()
            differ = firsts != group[linked]
            pair.append(firsts[differ])
            other.append(group[linked][differ])
    if not pair:
        return draws
    a, b = np.concatenate(pair), np.concatenate(other)
    joined = draws.copy()
    while True:
        highest = np.maximum(joined[a], joined[b])
        if (joined[a] == highest).all() and (joined[b] == highest).all():
            return joined
        np.maximum.at(joined, a, highest)
        np.maximum.at(joined, b, highest)
