"""Sudden changes between a release and its parent, which may mean that a source went bad or was poisoned.

A healthy corpus changes slowly. The share of every signature, source, registrable domain and language, the scores and
the number of samples are compared with the limits under `releases`. Changes above a limit are shown in the UI and by
`mmdata build`, and are stored in the release's `changes.json`. With `releases.on_sudden_change: hold`, such a release
does not become the latest until a person decides so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mmdata.config import Releases
from mmdata.display import printable
from mmdata.releases.diff import Changes, Diff, diff_releases
from mmdata.releases.draft import Draft
from mmdata.releases.manifest import Release, open_release
from mmdata.storage.atomic import publish_json
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

WATCHED_FIELDS = ("signature", "source", "domain", "language")
STORED_NAMES = 20  # per field, in changes.json


def sudden_changes(diff: Diff, limits: Releases) -> list[str]:
    """The changes that exceed their limits, one line each; the largest first within each kind."""
    lines = [
        f"{field} {printable(shift.name)}: {shift.share_before:.1%} of the samples, now {shift.share_after:.1%} "
        f"(releases.max_shift {limits.max_shift:g})"
        for field in WATCHED_FIELDS
        for shift in diff.mix[field]
        if abs(shift.change) > limits.max_shift
    ]
    stability = diff.scores.stability
    if stability is not None and stability > limits.max_score_shift:
        lines.append(
            f"scores: mean {diff.scores.mean_before:.3f}, now {diff.scores.mean_after:.3f}; stability index "
            f"{stability:.2f} (releases.max_score_shift {limits.max_score_shift:g})"
        )
    before, after = diff.counts["samples_before"], diff.counts["samples_after"]
    if before and abs(after - before) > limits.max_growth * before:
        lines.append(f"samples: {before:,}, now {after:,} (releases.max_growth {limits.max_growth:g})")
    return lines


def read_changes(workspace: Workspace, release_id: str) -> Changes | None:
    """The difference of a release from its parent, as stored when it was published; None if it had no parent."""
    return cast("Changes | None", read_json(workspace.release_dir(release_id) / "changes.json"))


def write_changes(workspace: Workspace, draft: Draft, shards: Mapping[str, Any], limits: Releases) -> None:
    """Write `changes.json` of a release before it is published; nothing if it has no parent or the parent is gone.

    Args:
        shards: the content of the release's shards.json.
    """
    parent = draft.parent
    if parent is None or not (workspace.release_dir(parent) / "selection.parquet").exists():
        return
    unpublished = {"release_id": draft.release_id, "parts": draft.parts, "shards": shards["shards"]}
    after = Release(workspace.release_dir(draft.release_id), unpublished)
    diff = diff_releases(open_release(workspace.release_dir(parent)), after)
    changes = {"sudden": sudden_changes(diff, limits), **diff.to_json(STORED_NAMES)}
    publish_json(after.folder / "changes.json", changes)
