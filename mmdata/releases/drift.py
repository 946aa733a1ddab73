"""Sudden change between a release and its parent: how a source that went bad, or was bought to poison, shows itself.

A corpus changes slowly. Held against limits are the share of every signature, source, registrable domain and language,
the scores, and the number of samples. What exceeds one is told in the UI, by `mmdata build`, and in the release's
`changes.json`; `releases.on_sudden_change: hold` keeps such a release from becoming the latest until a person says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdata.config import Releases
from mmdata.display import printable
from mmdata.releases.diff import Diff, diff_releases
from mmdata.releases.draft import Draft
from mmdata.releases.manifest import Release, open_release
from mmdata.storage.atomic import publish_json
from mmdata.workspace.layout import Workspace, read_json

WATCHED = ("signature", "source", "domain", "language")
NAMES_KEPT = 20  # of each field, in changes.json


def sudden_changes(diff: Diff, limits: Releases) -> list[str]:
    """What of a difference exceeds its limit, one line each; the largest first within each kind."""
    found = [
        f"{field} {printable(shift.name)}: {shift.share_before:.1%} of the samples, now {shift.share_after:.1%} "
        f"(releases.max_shift {limits.max_shift:g})"
        for field in WATCHED
        for shift in diff.mix[field]
        if abs(shift.change) > limits.max_shift
    ]
    stability = diff.scores.stability
    if stability is not None and stability > limits.max_score_shift:
        found.append(
            f"scores: mean {diff.scores.mean_before:.3f}, now {diff.scores.mean_after:.3f}; stability index "
            f"{stability:.2f} (releases.max_score_shift {limits.max_score_shift:g})"
        )
    before, after = diff.counts["samples_before"], diff.counts["samples_after"]
    if before and abs(after - before) > limits.max_growth * before:
        found.append(f"samples: {before:,}, now {after:,} (releases.max_growth {limits.max_growth:g})")
    return found


def changes_of(workspace: Workspace, release_id: str) -> dict[str, Any] | None:
    """What was noted when a release was published: its difference from its parent, and what was sudden about it."""
    return read_json(workspace.release_dir(release_id) / "changes.json")


def note_changes(workspace: Workspace, draft: Draft, shards: Mapping[str, Any], limits: Releases) -> None:
    """Write `changes.json` of a release before it is published; none for a first, or where its parent is gone."""
    parent = draft.parent
    if parent is None or not (workspace.release_dir(parent) / "selection.parquet").exists():
        return
    before = open_release(workspace.release_dir(parent))
    coming = {"release_id": draft.release_id, "parts": draft.parts, "shards": shards["shards"]}
    after = Release(workspace.release_dir(draft.release_id), coming)
    diff = diff_releases(before, after)
    noted = {"sudden": sudden_changes(diff, limits), **diff.to_json(NAMES_KEPT)}
    publish_json(after.folder / "changes.json", noted)
