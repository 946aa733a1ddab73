"""What a release records of each of its shards, and the check of their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmdata.workspace.layout import Workspace


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of a release.

    Args:
        name: `<split>-<cohort>-<bucket>-<first 12 hex digits of sha256>.tar`.
        recipe: fingerprint of the contents, in order; the same recipe gives the same bytes.
    """

    name: str
    split: str
    cohort: str
    bucket: int
    sha256: str
    bytes: int
    samples: int
    recipe: str


def shard_problems(workspace: Workspace, shards: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Which shards are missing or have another size than `bytes` says; their content is not read."""
    for shard in shards:
        path = workspace.shards_dir / shard["name"]
        size = path.stat().st_size if path.exists() else None
        if size != shard["bytes"]:
            yield f"{path} " + ("is not there" if size is None else f"has {size} bytes, not {shard['bytes']}")
