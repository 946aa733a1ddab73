"""The published releases of a workspace, in order, and a summary of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmdata.releases.holds import read_hold
from mmdata.releases.manifest import find_manifest
from mmdata.releases.pins import pins, rolled_back
from mmdata.workspace.layout import Workspace


@dataclass(frozen=True, slots=True)
class ListedRelease:
    """The summary of a release.

    Args:
        created_at: UTC ISO time.
        samples: rows of its index: copies count.
        bytes: size of its shards.
        own_bytes: size of the shards that no other release names: what deleting it would free.
        note: text given when it was pinned or rolled back.
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
    is_held: bool
    note: str


def list_releases(workspace: Workspace) -> list[ListedRelease]:
    """Summaries of all published releases, the newest first."""
    manifests = read_manifests(workspace)
    uses = Counter(shard["name"] for manifest in manifests for shard in manifest["shards"])
    latest, pinned = workspace.latest(), pins(workspace)
    hold = read_hold(workspace)
    rejected = {mark["release"]: mark for mark in rolled_back(workspace).values()}
    releases = []
    for manifest in manifests:
        release_id, shards = manifest["release_id"], manifest["shards"]
        notes = [marks[release_id]["note"] for marks in (pinned, rejected) if release_id in marks]
        releases.append(
            ListedRelease(
                release_id=release_id,
                created_at=manifest["created_at"],
                parent=manifest["parent"],
                samples=sum(shard["samples"] for shard in shards),
                shards=len(shards),
                bytes=sum(shard["bytes"] for shard in shards),
                own_bytes=sum(shard["bytes"] for shard in shards if uses[shard["name"]] == 1),
                is_latest=release_id == latest,
                is_pinned=release_id in pinned,
                is_rolled_back=release_id in rejected,
                is_held=hold is not None and hold["release"] == release_id,
                note="; ".join(note for note in notes if note),
            )
        )
    return releases


def read_manifests(workspace: Workspace) -> Sequence[dict[str, Any]]:
    """The manifests of all published releases, the newest first; a child comes before a parent of the same second."""
    manifests = {name: manifest for name in workspace.releases() if (manifest := find_manifest(workspace, name))}

    def generation(name: str | None) -> int:
        ancestors = 0
        while name in manifests and ancestors <= len(manifests):  # damaged manifests may name each other as parents
            name, ancestors = manifests[name]["parent"], ancestors + 1
        return ancestors

    age = {name: (manifest["created_at"], generation(name), name) for name, manifest in manifests.items()}
    return [manifests[name] for name in sorted(age, key=lambda name: age[name], reverse=True)]
