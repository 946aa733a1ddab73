"""Pinned releases, which are never deleted, and rolled-back ones, which never become the latest again by themselves.

releases/pins.json          release id -> Mark
releases/rolled_back.json   fingerprint of a release's inputs -> RollbackMark
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypedDict, cast

from mmdata.errors import DataError, UserError
from mmdata.releases.manifest import Release, find_manifest, is_empty, open_release
from mmdata.releases.shard import shard_problems
from mmdata.storage.atomic import publish_json
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

_REMEDY = (
    "Remedy: restore it from a copy, or delete it and set the marks again with `mmdata pin` and `mmdata rollback`."
)


class Mark(TypedDict):
    """A person's decision about a release: the reason, which may be empty, and a UTC ISO time."""

    note: str
    at: str


class RollbackMark(Mark):
    """The mark of a release that a person went back from."""

    release: str  # its id


def pins(workspace: Workspace) -> dict[str, Mark]:
    """The marks of the pinned releases, by id."""
    return cast("dict[str, Mark]", read_json(workspace.releases_dir / "pins.json", _REMEDY) or {})


def pin(workspace: Workspace, release_id: str, note: str = "") -> str:
    """Protect a release from deletion and return its id. Raises UserError if there is no such release."""
    full_id = named_release(workspace, release_id).id
    publish_json(workspace.releases_dir / "pins.json", pins(workspace) | {full_id: _mark(note)})
    return full_id


def unpin(workspace: Workspace, release_id: str) -> str:
    """Allow the deletion of a release again and return its id. Raises UserError if it is not pinned."""
    pinned = pins(workspace)
    full_id = named_release(workspace, release_id).id
    if full_id not in pinned:
        raise UserError(f"{full_id} is not pinned; pinned are: {', '.join(sorted(pinned)) or 'none'}")
    del pinned[full_id]
    publish_json(workspace.releases_dir / "pins.json", pinned)
    return full_id


def rolled_back(workspace: Workspace) -> dict[str, RollbackMark]:
    """The marks of the releases that were rolled back, by the fingerprint of their inputs."""
    return cast("dict[str, RollbackMark]", read_json(workspace.releases_dir / "rolled_back.json", _REMEDY) or {})


def roll_back(workspace: Workspace, release_id: str, note: str = "") -> list[str]:
    """Make another release the latest: an earlier one, or a later one that was held or rolled back.

    The inputs of the later releases are stored, so that a build of the same inputs does not make one of them the
    latest. A change of the inputs (a row, a setting) makes a new release, whose parent is the one given here. To go
    forward again, give the later release: its mark is then removed.

    Returns:
        The ids of the releases that this rolls back: from the latest, by parents, to the one given.

    Raises:
        UserError: there is no such release, it is the latest already, or it holds no sample.
        DataError: a shard of it is missing.
    """
    target = named_release(workspace, release_id)
    latest = workspace.latest()
    if latest == target.id:
        raise UserError(f"{release_id} is the latest release already")
    if is_empty(target.manifest):
        raise UserError(f"{target.id} holds no sample, and cannot be the latest. Remedy: choose another release.")
    _check_shards(workspace, target)
    marks = {inputs: mark for inputs, mark in rolled_back(workspace).items() if inputs != target.manifest["inputs"]}
    later = _later_manifests(workspace, latest, target.id)
    marks |= {manifest["inputs"]: {"release": manifest["release_id"], **_mark(note)} for manifest in later}
    # The marks are written first: after a kill in between, the old release is still the latest, and stays it.
    publish_json(workspace.releases_dir / "rolled_back.json", marks)
    workspace.set_latest(target.id)
    return [str(manifest["release_id"]) for manifest in later]


def named_release(workspace: Workspace, release_id: str) -> Release:
    """Open a release by its id or the first digits of it. Raises UserError if none matches, or more than one."""
    ids = workspace.releases()
    matches = [name for name in ids if name == release_id] or [name for name in ids if name.startswith(release_id)]
    if len(matches) == 1 and release_id:
        return open_release(workspace.release_dir(matches[0]))
    problem = f"{len(matches)} releases begin with" if matches else "no release"
    raise UserError(f"{problem} {release_id!r} in {workspace.root}; there are: {', '.join(ids) or 'none'}")


def _check_shards(workspace: Workspace, release: Release) -> None:
    for shard in release.manifest["shards"]:
        if any(shard_problems(workspace, [shard])):
            path = workspace.shards_dir / shard["name"]
            raise DataError(f"release {release.id}: {path} is missing or cut short. Remedy: choose another release.")


def _later_manifests(workspace: Workspace, latest: str | None, target_id: str) -> list[dict[str, Any]]:
    """From the latest release back to the target, without it; only the latest if neither descends from the other.

    Empty if the target descends from the latest: a step forward rolls nothing back.
    """
    if latest in _ancestors(workspace, target_id):
        return []
    chain: list[dict[str, Any]] = []
    current = latest
    while current is not None and current != target_id:
        try:
            manifest = find_manifest(workspace, current)
        except DataError:
            manifest = None
        # a missing or damaged manifest, or a circle of parents, ends the search
        if manifest is None or any(earlier["release_id"] == current for earlier in chain):
            return chain[:1]
        chain.append(manifest)
        current = manifest["parent"]
    return chain if current == target_id else chain[:1]


def _ancestors(workspace: Workspace, release_id: str) -> set[str]:
    """The releases from which a release descends; a damaged manifest, or a circle of parents, ends the search."""
    ancestors: set[str] = set()
    manifest = find_manifest(workspace, release_id)
    while manifest and (parent := manifest.get("parent")) and parent not in ancestors:
        ancestors.add(parent)
        manifest = find_manifest(workspace, parent)
    return ancestors


def _mark(note: str) -> Mark:
    return {"note": note, "at": datetime.now(UTC).isoformat(timespec="seconds")}
