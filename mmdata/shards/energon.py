"""Metadata for Megatron-Energon, as `energon prepare` writes it, but made from the index instead of the shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.storage.atomic import publish_bytes
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import Workspace

SPLITS = {"train": "train", "val": "validation"}  # Energon's name -> ours
CAPTIONING = {
    "sample_type": {"__module__": "megatron.energon", "__class__": "CaptioningSample"},
    "field_map": {"image": "jpg", "caption": "txt"},
}
CRUDE = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
"""A dataset has one sample type. Where not all samples hold a picture, they are handed out as they are, a member
each by its extension, and a cooker of the reader's makes of them what its model takes."""


def write_energon(folder: UPath, shards: Sequence[Mapping[str, Any]]) -> None:
    """Write `.nv-meta/` of a release, and for each shard a `.tar.idx` with the offsets of its samples.

    Args:
        folder: folder of the release, which holds index.parquet. Shards are named relative to it.
        shards: as in shards.json.
    """
    split_parts = {
        theirs: [_relative(shard["name"]) for shard in shards if shard["split"] == ours]
        for theirs, ours in SPLITS.items()
    }
    for name, value in (
        (".info.yaml", {"shard_counts": {_relative(shard["name"]): shard["samples"] for shard in shards}}),
        ("split.yaml", {"exclude": [], "split_parts": {**split_parts, "test": []}}),
        ("dataset.yaml", _dataset(folder)),
    ):
        publish_bytes(folder / ".nv-meta" / name, (json.dumps(value, indent=1) + "\n").encode())  # JSON is YAML
    _write_offsets(folder, shards)


def _dataset(folder: UPath) -> dict[str, Any]:
    index = scan_tables([folder / "index.parquet"], ["signature"])
    signatures = set(index.unique().collect()["signature"])
    pictures = all("image" in signature.split("+") for signature in signatures)
    return CAPTIONING if pictures else {**CRUDE, "subflavors": {"source": "mmdata"}}


def offsets_path(shard: UPath) -> UPath:
    """Path of the offsets of a shard: one little-endian uint64 a sample, then the end of the last, in bytes."""
    return shard.with_name(shard.name + ".idx")


def sample_offsets(starts: np.ndarray, lengths: np.ndarray) -> bytes:
    """Offsets of a shard in Energon's format, from the start and length of each sample, in bytes."""
    return np.append(starts, starts[-1] + lengths[-1]).astype("<u8").tobytes()


def _write_offsets(folder: UPath, shards: Sequence[Mapping[str, Any]]) -> None:
    home = Workspace(folder.parent.parent).shards_dir
    missing = [shard["name"] for shard in shards if not offsets_path(home / shard["name"]).exists()]
    index = scan_tables([folder / "index.parquet"], ["shard", "offset", "length"])
    places = index.filter(pl.col("shard").is_in(missing)).collect()
    for (shard,), samples in places.group_by("shard", maintain_order=True):
        data = sample_offsets(samples["offset"].to_numpy(), samples["length"].to_numpy())
        publish_bytes(offsets_path(home / str(shard)), data)


def _relative(shard: str) -> str:
    return f"../../shards/{shard}"
