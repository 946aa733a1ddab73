"""Held releases: published, but not the latest until a person says so, because they lost much of the latest one.

releases/held.json   the Hold of the newest release, if it is held
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from mmdata.config import Releases
from mmdata.optout.state import OPT_OUT
from mmdata.releases.drift import read_changes
from mmdata.releases.manifest import find_manifest, is_empty
from mmdata.storage.atomic import publish_json, withdraw
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import Workspace

REASONS_NAMED = 3


class Hold(TypedDict):
    """Why a release is held, and how it becomes the latest."""

    release: str  # its id
    why: str


def read_hold(workspace: Workspace) -> Hold | None:
    """The hold of the newest release; None if it is not held, or was made the latest since."""
    path = workspace.releases_dir / "held.json"
    hold = read_derived(path, lambda data: Hold(release=str(data["release"]), why=str(data["why"])))
    return None if hold is None or hold["release"] == workspace.latest() else hold


def write_hold(workspace: Workspace, release_id: str, why: str | None) -> None:
    """Note that the newest release is held, or that it is not (None)."""
    path = workspace.releases_dir / "held.json"
    if why is not None:
        publish_json(path, Hold(release=release_id, why=why))
    else:
        withdraw(path)


def hold_reason(workspace: Workspace, manifest: Mapping[str, Any], limits: Releases) -> str | None:
    """Why a published release must not become the latest by itself, and the command that makes it; None: it may.

    Args:
        manifest: of the release.
    """
    release = manifest["release_id"]
    if workspace.latest() == release:
        return None
    if is_empty(manifest):
        return (
            f"release `{release}` holds no sample{_most_frequent(manifest['reasons'])}, and an empty release never "
            "becomes the latest. Remedy: change the setting that drops the samples, then run `mmdata build`."
        )
    let_through = f"`mmdata rollback {release}` makes it the latest."
    latest = find_manifest(workspace, workspace.latest()) or {}  # unchecked: a damaged one is compared with nothing
    before, after = latest.get("counts", {}).get("kept", 0), manifest["counts"]["kept"]
    lost = before - after - (_opted_out(manifest) - _opted_out(latest))
    if lost > limits.max_loss * before:
        return (
            f"release `{release}` keeps {after:,} samples, the latest one {before:,} (releases.max_loss "
            f"{limits.max_loss:g}){_most_frequent(manifest['reasons'])}. If that is right, {let_through}"
        )
    changes = read_changes(workspace, release)
    if limits.on_sudden_change == "hold" and changes and changes["sudden"]:
        return f"release `{release}` changes suddenly: {'; '.join(changes['sudden'])}. {let_through}"
    return None


def _opted_out(manifest: Mapping[str, Any]) -> int:
    """Samples that somebody asked to leave out; their loss is wanted."""
    return int(manifest.get("reasons", {}).get(OPT_OUT, 0))


def _most_frequent(reasons: Mapping[str, int]) -> str:
    worst = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:REASONS_NAMED]
    return f" (dropped most: {', '.join(f'{reason} {count:,}' for reason, count in worst)})" if worst else ""
