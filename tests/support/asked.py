"""Handmade rows as the instruction tasks see them, and the split that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mmdata.instruct.asked_sample import Sample, Split
from mmdata.instruct.kept import FURTHER_CAPTIONS
from mmdata.instruct.neighbours import Neighbours, no_neighbours
from mmdata.instruct.videos import videos_of

SCHEMA: dict[str, Any] = {
    "uid": pl.String,
    "key": pl.String,
    "shard": pl.String,
    "split": pl.String,
    "tokens": pl.Int64,
    "kind": pl.String,
    "url": pl.String,
    "start_s": pl.Float64,
    "end_s": pl.Float64,
    "exts": pl.List(pl.String),
    "synthetic": pl.String,
    "speech_ratio": pl.Float64,
    "silence_ratio": pl.Float64,
    "caption": pl.String,
    "caption_lang": pl.String,
    "is_told": pl.Boolean,
    "further_captions": FURTHER_CAPTIONS,
    "question": pl.String,
    "answer": pl.String,
}
FRAMES = [f"{at:03d}.jpg" for at in range(4)]


def picture(number: int, **changes: Any) -> dict[str, Any]:
    """A stored picture with a caption."""
    uid = f"{number:032x}"
    row = dict.fromkeys(SCHEMA) | {"uid": uid, "key": uid, "shard": "train-c0000.tar", "split": "train", "tokens": 4}
    return row | {"kind": "image", "exts": ["jpg"], "caption": f"the grey cat {number}", "is_told": False} | changes


def clip(number: int, video: str = "a", **changes: Any) -> dict[str, Any]:
    """A clip of 10 s with four frames, its own sound and words that were said."""
    own = {"kind": "video", "url": f"https://v.example/{video}", "exts": [*FRAMES, "flac"], "is_told": True}
    times = {"start_s": 10.0 * number, "end_s": 10.0 * number + 8}
    return picture(number) | own | times | {"caption": f"stir pot {number}"} | changes


def split_of(
    rows: Sequence[dict[str, Any]],
    tasks: Sequence[str] = (),
    negative: Sequence[int] = (),
    reference: Sequence[int] = (),
) -> Split:
    """The split of these rows; without neighbours, unless they are given as one row number a sample."""
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    neighbours = no_neighbours(len(frame))
    if negative or reference:
        neighbours = Neighbours(np.array(negative, np.int64), np.array(reference, np.int64))
    return Split(frame, neighbours, videos_of(frame), tasks)


def sample_of(split: Split, at: int, lang: str = "en", bits: int = 0) -> Sample:
    """A sample of the split as a task is given it."""
    return Sample(split.row(at), at, lang, bits)
