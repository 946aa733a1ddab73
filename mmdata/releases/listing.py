"""The releases of a workspace, a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmdata.releases.pins import pins, rolled_back
from mmdata.workspace.layout import Workspace, read_json


@dataclass(frozen=True, slots=True)
class Listed:
    """A release among the others.

    Args:
        created_at: UTC ISO time.
        samples: rows of its index: copies count.
        bytes: of its shards, in bytes.
        own_bytes: of the shards that no other release names: what goes with it.
        note: what was written when it was pinned or rolled back.
    """

    release_id: str
    created_at: str
    parent: str | None
    samples: int
    shards: int
    bytes: int
    own_bytes: int
    is_latest: bool
    is_pinned: bool
    is_rolled_back: bool
    note: str


def list_releases(workspace: Workspace) -> list[Listed]:
    """Every published release, the newest first."""
    manifests = published(workspace)
    users = Counter(shard["name"] for manifest in manifests for shard in manifest["shards"])
    latest, pinned = workspace.latest(), pins(workspace)
    gone = {mark["release"]: mark for mark in rolled_back(workspace).values()}
    releases = []
    for manifest in manifests:
        name, shards = manifest["release_id"], manifest["shards"]
        notes = [marks[name]["note"] for marks in (pinned, gone) if name in marks]
        releases.append(
            Listed(
                release_id=name,
                created_at=manifest["created_at"],
                parent=manifest["parent"],
                samples=sum(shard["samples"] for shard in shards),
                shards=len(shards),
                bytes=sum(shard["bytes"] for shard in shards),
                own_bytes=sum(shard["bytes"] for shard in shards if users[shard["name"]] == 1),
                is_latest=name == latest,
                is_pinned=name in pinned,
                is_rolled_back=name in gone,
                note="; ".join(note for note in notes if note),
            )
        )
    return releases


def published(workspace: Workspace) -> Sequence[dict[str, Any]]:
    """The manifests of all published releases, the newest first; of those of one second, a child before its parent."""
    contents = [read_json(workspace.release_dir(name) / "manifest.json") for name in workspace.releases()]
    manifests = {str(manifest["release_id"]): manifest for manifest in contents if manifest}

    def generation(name: str | None) -> int:
        count = 0
        while name in manifests and count <= len(manifests):
            name, count = manifests[name]["parent"], count + 1
        return count

    order = {name: (manifest["created_at"], generation(name), name) for name, manifest in manifests.items()}
    return [manifests[name] for name in sorted(order, key=lambda name: order[name], reverse=True)]
