"""`datasets.json`: the columns of a release for Hugging Face `datasets`, which infers those of one signature only."""

from __future__ import annotations

from typing import Any

import polars as pl
from upath import UPath

from mmdata.documents import DOCUMENT
from mmdata.shards.facts import release_facts
from mmdata.storage.atomic import publish_json
from mmdata.storage.tables import scan_tables

FEATURES_FILE = "datasets.json"
_DTYPES = {str: "string", int: "int64", float: "float64"}


def write_features(folder: UPath, keeps_video: bool, has_captions: bool = False) -> None:
    """Write `datasets.json` of a release, which `datasets.Features.from_dict` reads.

    It names every member that a sample of the release may have; `datasets` gives None where a sample lacks one.

    Args:
        folder: of the release; holds index.parquet.
        keeps_video: whether clips are stored as mp4, too.
        has_captions: whether captions were generated for the release.
    """
    index = scan_tables([folder / "index.parquet"], ["signature", "frames"])
    kinds, frames = (
        index.select(pl.col("signature").str.split("+").explode().unique().implode(), pl.max("frames")).collect().row(0)
    )
    publish_json(folder / FEATURES_FILE, _features(set(kinds), frames, keeps_video, has_captions))


def _features(kinds: set[str], frames: int, keeps_video: bool, has_captions: bool) -> dict[str, Any]:
    pictures = ["jpg"] if "image" in kinds else []
    pictures += [f"{number:03d}.jpg" for number in range(frames)] if kinds & {"video", DOCUMENT} else []
    return {
        **{name: {"_type": "Image"} for name in pictures},
        # as bytes: the types Audio and Video take torchcodec, even to load what they do not decode
        **({"flac": _value("binary")} if "audio" in kinds else {}),
        **({"mp4": _value("binary")} if keeps_video and "video" in kinds else {}),
        "json": {fact.name: _value(_DTYPES[fact.type]) for fact in release_facts(has_captions)},
        **{name: _value("string") for name in ("txt", "__key__", "__url__")},
    }


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}
