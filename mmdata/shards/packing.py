"""Packs a shard in memory: the sizes are known, so the members are placed first and then read into place."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.shards.members import stored_members, stored_size
from mmdata.shards.stored_media import read_media
from mmdata.storage.tar import BLOCK, END, headers, padded


def pack(frame: pl.DataFrame) -> memoryview:
    """The bytes of a shard: for each sample the stored media, the facts and the caption.

    Args:
        frame: from `members.complete`, in the order of the samples in the shard.

    Returns:
        The whole archive; it is the only copy of the media in memory.

    Raises:
        DataError: a media tar is missing or short.
    """
    buffer = np.zeros(int(frame["size"].sum()) + len(END), np.uint8)
    sample_at = (frame["size"].cum_sum() - frame["size"]).to_numpy()
    stored = stored_members(frame)
    owner, length = stored["sample"].to_numpy(), stored["length"].cast(pl.Int64).to_numpy()
    taken = np.cumsum(padded(length)) - padded(length)
    is_first = np.diff(owner, prepend=-1) != 0
    stored_at = sample_at[owner] + taken - np.repeat(taken[is_first], np.diff(np.flatnonzero([*is_first, True])))
    facts, captions = frame["json"], frame["txt"]
    facts_at = sample_at + frame.select(stored_size())["stored_size"].to_numpy()
    captions_at = facts_at + padded(_sizes(facts))
    keys = frame["key"].to_list()
    blocks, view = buffer.reshape(-1, BLOCK), buffer.data
    tars = frame.select("part", "tar")[owner]
    places = pl.Series("place", stored_at + BLOCK, dtype=pl.Int64)
    read_media(pl.concat([tars, stored.select("offset", "length")], how="horizontal").with_columns(places), view)
    # headers last: neighbouring members were read at once, with the headers of the old tar between them
    names = [f"{keys[at]}.{ext}" for at, ext in stored.select("sample", "ext").iter_rows()]
    blocks[stored_at // BLOCK] = headers(names, length)
    for at, column, ext in ((facts_at, facts, "json"), (captions_at, captions, "txt")):
        blocks[at // BLOCK] = headers([f"{key}.{ext}" for key in keys], _sizes(column))
        for start, data in zip((at + BLOCK).tolist(), column.to_list(), strict=True):
            view[start : start + len(data)] = data
    return view


def _sizes(column: pl.Series) -> np.ndarray:
    return column.bin.size().cast(pl.Int64).to_numpy()
