"""Prepares the latest release to be made again under its own id, because files of it are lost or damaged."""

from __future__ import annotations

from collections.abc import Iterator

from upath import UPath

from mmdata.config import Corpus
from mmdata.errors import DataError, UserError
from mmdata.publish.release import sha256_of
from mmdata.releases.draft import find_draft, release_inputs
from mmdata.releases.manifest import read_manifest
from mmdata.storage.atomic import withdraw
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased

DERIVED = ("shards.json", "index.parquet", "instructions.json")
"""Files of a release that follow from its selection; without a manifest nothing tells whether they are sound."""


def forget_release(corpus: Corpus, workspace: Workspace) -> None:
    """Delete the manifest of the latest release, and what of its files and shards is not as it was written.

    The next build makes them again from the tables of the parts. What is sound is kept, shards too.

    Raises:
        UserError: there is no release; or its inputs have changed since, so that a build makes another one.
    """
    with leased(workspace, "release", "redo of the release", wait_s=corpus.engine.wait_s):
        latest, draft = workspace.latest(), find_draft(workspace)
        if latest is None:
            raise UserError(f"{workspace.root}: no release yet. Remedy: `mmdata build`")
        if (
            draft is None
            or draft.release_id != latest
            or release_inputs(corpus, workspace, draft.parts) != draft.inputs
        ):
            raise UserError(
                f"release {latest} cannot be made again: its parts or settings have changed since. Remedy: restore it "
                "from a copy, or let `mmdata build` make a new release."
            )
        damaged = list(_damaged(workspace, workspace.release_dir(latest)))
        withdraw(workspace.release_dir(latest) / "manifest.json")  # first: nothing may vouch for what is deleted
        withdraw(*damaged)


def _damaged(workspace: Workspace, folder: UPath) -> Iterator[UPath]:
    """The files and shards of a release whose bytes are not those that its manifest names."""
    try:
        manifest = read_manifest(folder)
    except DataError:
        manifest = None
    if manifest is None:
        shards = read_derived(folder / "shards.json", lambda data: list(data["shards"])) or []
        yield from (folder / name for name in DERIVED)
    else:
        shards = manifest["shards"]
        for name, facts in manifest["files"].items():
            path = folder / name
            if path.exists() and sha256_of(path) != (facts["sha256"], facts["bytes"]):
                yield path
    for shard in shards:
        path = workspace.shards_dir / shard["name"]
        if path.exists() and sha256_of(path)[0] != shard["sha256"]:
            yield path
