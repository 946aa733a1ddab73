"""A shard in memory: laid out first, since the sizes are known, then filled in place."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.shards.media import read_media
from mmdata.shards.tar import BLOCK, END, headers, padded


def pack(frame: pl.DataFrame) -> memoryview:
    """The bytes of a shard; of each sample the image, the facts, the caption.

    Args:
        frame: from `members.complete`, in the order in which the samples shall lie.

    Returns:
        The whole archive; it is the only copy of the images in memory.

    Raises:
        DataError: a media tar is missing or short.
    """
    buffer = np.zeros(int(frame["size"].sum()) + len(END), np.uint8)
    with_image = frame["ext"].is_not_null().to_numpy()
    image_size = frame["length"].fill_null(0).to_numpy()
    facts, captions = frame["json"], frame["txt"]
    image_at = (frame["size"].cum_sum() - frame["size"]).to_numpy()
    facts_at = image_at + np.where(with_image, padded(image_size), 0)
    captions_at = facts_at + padded(_sizes(facts))
    keys, exts = frame["key"].to_list(), frame["ext"].to_list()
    blocks, view = buffer.reshape(-1, BLOCK), buffer.data
    images = [f"{key}.{ext}" for key, ext in zip(keys, exts, strict=True) if ext is not None]
    blocks[image_at[with_image] // BLOCK] = headers(images, image_size[with_image])
    for at, column, ext in ((facts_at, facts, "json"), (captions_at, captions, "txt")):
        blocks[at // BLOCK] = headers([f"{key}.{ext}" for key in keys], _sizes(column))
        for start, data in zip((at + BLOCK).tolist(), column.to_list(), strict=True):
            view[start : start + len(data)] = data
    read_media(frame.select("part", "tar", "offset", "length", place=pl.Series(image_at + BLOCK)), view)
    return view


def _sizes(column: pl.Series) -> np.ndarray:
    return column.bin.size().cast(pl.Int64).to_numpy()
