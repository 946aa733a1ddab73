"""Decides whether a build has nothing to do, because no source file, setting, part or release has changed."""

from __future__ import annotations

from mmdata.config import Corpus
from mmdata.engine.freshness import plan_parts, releasable_parts
from mmdata.errors import MMDataError
from mmdata.optout.lists import lists_changed
from mmdata.releases.draft import find_draft, plan_release
from mmdata.releases.manifest import find_manifest
from mmdata.releases.shard import shard_problems
from mmdata.sources.catalog import look_at_sources
from mmdata.workspace.layout import Workspace

RELEASE_FILES = ("manifest.json", "shards.json", "instructions.json", "index.parquet", "report.html")


def up_to_date_release(corpus: Corpus, workspace: Workspace) -> str | None:
    """The id of the latest release if a build would change nothing; None if it has work to do. Nothing is written.

    Reads the source files as a build does, then stamps and the sizes of shards. Any fault (an unreadable file or list,
    a refused part, a missing shard) gives None as well, so that the build runs and reports it.
    """
    try:
        return _unchanged_release(corpus, workspace)
    except MMDataError:
        return None


def _unchanged_release(corpus: Corpus, workspace: Workspace) -> str | None:
    latest, draft = workspace.latest(), find_draft(workspace)
    if latest is None or draft is None or draft.release_id != latest:
        return None
    catalog = workspace.catalog()
    if look_at_sources(corpus, workspace, catalog, may_write=False) != catalog:
        return None
    if any(entry["status"] == "unreadable" for entry in catalog.files.values()):
        return None
    if lists_changed(corpus.optout, workspace) or any(plan.stale for plan in plan_parts(corpus, workspace)):
        return None
    parts, refused = releasable_parts(corpus, workspace)
    if not parts or refused or draft.refused_parts:
        return None
    planned = plan_release(corpus, workspace, parts)
    return latest if planned.release_id == latest and planned.published and _is_whole(workspace, latest) else None


def _is_whole(workspace: Workspace, release_id: str) -> bool:
    """Whether the files of a release and its shards exist, with the sizes of shards that the manifest names."""
    folder = workspace.release_dir(release_id)
    manifest = find_manifest(workspace, release_id)
    if manifest is None or not all((folder / name).exists() for name in RELEASE_FILES):
        return False
    return not any(shard_problems(workspace, manifest["shards"]))
