"""Which releases a person has spoken for or against: pinned ones are never collected, rolled-back ones never return.

releases/pins.json          release id -> {note, at}
releases/rolled_back.json   fingerprint of a release's inputs -> {release, note, at}
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mmdata.errors import DataError, UserError
from mmdata.releases.manifest import Release, open_release
from mmdata.storage.atomic import publish_json
from mmdata.workspace.layout import Workspace, read_json


def pins(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The pinned releases: id -> note and UTC ISO time."""
    return read_json(workspace.releases_dir / "pins.json") or {}


def pin(workspace: Workspace, release_id: str, note: str = "") -> str:
    """Keep a release for good; returns its id. Raises UserError where there is none of that id."""
    full_id = named_release(workspace, release_id).id
    publish_json(workspace.releases_dir / "pins.json", pins(workspace) | {full_id: _entry(note)})
    return full_id


def unpin(workspace: Workspace, release_id: str) -> str:
    """Let a release go with the others; returns its id. Raises UserError where it is not pinned."""
    pinned = pins(workspace)
    full_id = named_release(workspace, release_id).id
    if full_id not in pinned:
        raise UserError(f"{full_id} is not pinned; pinned are: {', '.join(sorted(pinned)) or 'none'}")
    del pinned[full_id]
    publish_json(workspace.releases_dir / "pins.json", pinned)
    return full_id


def rolled_back(workspace: Workspace) -> dict[str, dict[str, str]]:
    """What was rolled back: fingerprint of the inputs -> release, note and UTC ISO time."""
    return read_json(workspace.releases_dir / "rolled_back.json") or {}


def roll_back(workspace: Workspace, release_id: str, note: str = "") -> list[str]:
    """Make an earlier release the latest, and keep those after it from becoming it again.

    Their inputs are remembered: a build of the very same inputs makes no other latest release. Whatever changes the
    inputs (a row, a setting) makes a new release, whose parent is the one given here. To go forward again, give the
    later release: its own mark is taken away.

    Returns:
        The ids of the releases that are rolled back by this: from the latest, by parents, to the one given.

    Raises:
        UserError: there is no such release, or it is the latest already.
        DataError: a shard that it names is not there.
    """
    wanted = named_release(workspace, release_id)
    latest = workspace.latest()
    if latest == wanted.id:
        raise UserError(f"{release_id} is the latest release already")
    missing_shards(workspace, wanted)
    marks = {key: mark for key, mark in rolled_back(workspace).items() if key != wanted.manifest["inputs"]}
    left = _after(workspace, latest, wanted.id)
    marks |= {manifest["inputs"]: {"release": manifest["release_id"], **_entry(note)} for manifest in left}
    # the marks go first: a kill in between leaves the old latest, which a build of the same inputs leaves alone
    publish_json(workspace.releases_dir / "rolled_back.json", marks)
    workspace.set_latest(wanted.id)
    return [str(manifest["release_id"]) for manifest in left]


def named_release(workspace: Workspace, release_id: str) -> Release:
    """A release by its id, or the first digits of it. Raises UserError where there is none, or more than one."""
    names = workspace.releases()
    matches = [name for name in names if name == release_id] or [name for name in names if name.startswith(release_id)]
    if len(matches) == 1 and release_id:
        return open_release(workspace.release_dir(matches[0]))
    problem = "no release" if not matches else f"{len(matches)} releases begin with"
    raise UserError(f"{problem} {release_id!r} in {workspace.root}; there are: {', '.join(names) or 'none'}")


def missing_shards(workspace: Workspace, release: Release) -> None:
    """Raise DataError where a shard of a release is not there, or not of its size."""
    for shard in release.manifest["shards"]:
        path = workspace.shards_dir / shard["name"]
        if not path.exists() or path.stat().st_size != shard["bytes"]:
            raise DataError(f"release {release.id}: {path} is not there, or not whole. Remedy: choose another release.")


def _after(workspace: Workspace, latest: str | None, wanted: str) -> list[dict[str, Any]]:
    """Manifests from the latest back to the wanted one, without it; the latest alone where it is no descendant."""
    chain: list[dict[str, Any]] = []
    current = latest
    while current is not None and current != wanted:
        manifest = read_json(workspace.release_dir(current) / "manifest.json")
        if manifest is None or any(earlier["release_id"] == current for earlier in chain):
            return chain[:1]
        chain.append(manifest)
        current = manifest["parent"]
    return chain if current == wanted else chain[:1]


def _entry(note: str) -> dict[str, str]:
    return {"note": note, "at": datetime.now(UTC).isoformat(timespec="seconds")}
