"""Garbage collection: deletes old releases, shards that no release names, and files that killed processes left.

The latest release, the pinned ones, the newest few and the draft are kept. A shard is garbage only if none of them
names it. The order of deletion keeps every other release whole at every instant: the manifest is the first file of its
release to go, and a shard goes only when no manifest names it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from upath import UPath

from mmdata.errors import UserError
from mmdata.releases.listing import read_manifests
from mmdata.releases.pins import pins
from mmdata.storage.atomic import TEMPORARY, is_local, withdraw
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased
from mmdata.workspace.media_tar import unaddressed

GRACE_S = 86_400.0  # a killed build resumes from shards that no release names yet


@dataclass(frozen=True, slots=True)
class Garbage:
    """What is deleted, or would be deleted in a dry run.

    Args:
        releases: ids, the newest first.
        abandoned: ids of releases that were begun and never published.
        shards, tars, scores, leftovers: files. `tars`: media that no table addresses; `scores`: kept scores and target
            sets that the latest selection did not use, or of slices that are gone; `leftovers`: half-written files.
        bytes: of all the files.
        busy: parts that a build works on; their media were kept.
    """

    releases: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    shards: tuple[UPath, ...] = ()
    tars: tuple[UPath, ...] = ()
    scores: tuple[UPath, ...] = ()
    leftovers: tuple[UPath, ...] = ()
    bytes: int = 0
    busy: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many there are of each kind, and the bytes."""
        names = ("releases", "abandoned", "shards", "tars", "scores", "leftovers")
        return {name: len(getattr(self, name)) for name in names} | {"bytes": self.bytes}


def collect_garbage(
    workspace: Workspace,
    keep: int,
    *,
    dry_run: bool = False,
    grace_s: float = GRACE_S,
    wait_s: float = 0.0,
    drop: frozenset[str] = frozenset(),
) -> Garbage:
    """Delete what nothing needs any more, and return it.

    Args:
        keep: how many of the newest releases stay besides the latest and the pinned ones; at least 1.
        dry_run: delete nothing.
        grace_s: age in seconds below which half-written files, and shards that no release has named, are kept.
        wait_s: seconds to wait for a build that works on a release.
        drop: releases to delete although they are among the newest.

    Raises:
        UserError: a build works on a release; or `drop` names the latest release or a pinned one.
    """
    with leased(workspace, "release", "garbage collection", wait_s=wait_s):
        garbage = _find_garbage(workspace, keep, grace_s, drop)
        if dry_run:
            return garbage
        for release_id in (*garbage.releases, *garbage.abandoned):
            _delete_release(workspace.release_dir(release_id))
        garbage_names = {path.name for path in garbage.shards}
        kept_names = {path.name for path in _glob(workspace.shards_dir, "*.tar")} - garbage_names
        recipes = list(_glob(workspace.shards_dir / "recipes", "*.json"))
        withdraw(*[recipe for recipe in recipes if (read_json(recipe) or {}).get("name") not in kept_names])
        withdraw(*garbage.shards, *garbage.scores, *garbage.leftovers)
    return _delete_tars(workspace, garbage)


def _find_garbage(workspace: Workspace, keep: int, grace_s: float, drop: frozenset[str]) -> Garbage:
    manifests = read_manifests(workspace)
    newest_first = [str(manifest["release_id"]) for manifest in manifests]
    deletable = _deletable_releases(workspace, newest_first, keep, drop)
    draft_id = str((read_json(workspace.draft_path) or {}).get("release_id"))
    folders = [path.name for path in _glob(workspace.releases_dir, "*") if path.is_dir()]
    abandoned = sorted(set(folders) - {*newest_first, draft_id})
    shards_of = {str(manifest["release_id"]): {shard["name"] for shard in manifest["shards"]} for manifest in manifests}
    if draft_id not in shards_of:
        written = read_json(workspace.release_dir(draft_id) / "shards.json")
        shards_of[draft_id] = {shard["name"] for shard in written["shards"]} if written else set()
    needed = {shard for release_id, shards in shards_of.items() if release_id not in deletable for shard in shards}
    # shards of a deleted release go at once; shards that no release ever named may belong to a build that resumes
    freed = {shard for release_id in deletable for shard in shards_of[release_id]} - needed
    shards = [
        path
        for path in _glob(workspace.shards_dir, "*.tar")
        if path.name in freed or (path.name not in needed and _age_s(path) >= grace_s)
    ]
    parts = [path.name for path in _glob(workspace.root / "parts", "*")]
    tars = [path for part in parts for path in _unaddressed_tars(workspace, part)]
    leftovers = [path for path in _half_written_files(workspace) if _age_s(path) >= grace_s]
    scores = [path for path in _unused_scores(workspace, parts) if _age_s(path) >= grace_s]
    release_files = [path for name in (*deletable, *abandoned) for path in _files(workspace.release_dir(name))]
    # a half-written file in a deleted release is in two of the lists, and is counted once
    sizes = {str(path): path.stat().st_size for path in (*release_files, *shards, *tars, *scores, *leftovers)}
    total_bytes = sum(sizes.values())
    return Garbage(
        tuple(deletable),
        tuple(abandoned),
        tuple(shards),
        tuple(tars),
        tuple(scores),
        tuple(leftovers),
        total_bytes,
    )


def _deletable_releases(
    workspace: Workspace, newest_first: Sequence[str], keep: int, drop: frozenset[str]
) -> list[str]:
    latest, pinned = workspace.latest(), set(pins(workspace))
    if protected := sorted(drop & {str(latest), *pinned}):
        status = "the latest release" if protected[0] == latest else "pinned"
        raise UserError(f"{protected[0]} is {status} and is not deleted. Remedy: publish another first, or unpin it.")
    newest = [release_id for release_id in newest_first if release_id not in drop][: max(1, keep)]
    return [release_id for release_id in newest_first if release_id not in {latest, *pinned, *newest}]


def _delete_release(folder: UPath) -> None:
    """Delete a release's folder; the manifest goes first, because a folder without it is no release."""
    withdraw(folder / "manifest.json")
    withdraw(*_files(folder))
    if is_local(folder):  # an object store has no folders
        for subfolder in sorted((path for path in folder.rglob("*") if path.is_dir()), key=str, reverse=True):
            subfolder.rmdir()
        folder.rmdir()


def _delete_tars(workspace: Workspace, garbage: Garbage) -> Garbage:
    """Delete the media that no table addresses, part by part; parts that a build works on are kept and named."""
    busy: list[str] = []
    for part in dict.fromkeys(path.parent.parent.name for path in garbage.tars):
        try:
            with leased(workspace, f"part-{part}", "garbage collection"):
                withdraw(*_unaddressed_tars(workspace, part))
        except UserError:
            busy.append(part)
    return replace(garbage, busy=tuple(busy))


def _unaddressed_tars(workspace: Workspace, part: str) -> list[UPath]:
    rows = workspace.part_stamp(part, "rows")
    return unaddressed(workspace, part, rows.slices) if rows else []  # no stamp: a build may be working on the part


def _unused_scores(workspace: Workspace, parts: Sequence[str]) -> Iterator[UPath]:
    """Kept scores and target sets that can be made again and are not in use. A bank cannot: it stays."""
    used = set((read_json(workspace.scores_dir / "used.json") or {}).get("used", ()))
    yield from (path for path in _glob(workspace.scores_dir, "target-*.npz") if path.name not in used)
    kept = list(_glob(workspace.scores_dir, "*/*.npy"))
    digests: set[str] = set()
    for part in parts if kept else ():
        stamp = workspace.part_stamp(part, "features")
        slices = [workspace.slice_stamp(part, "features", name) for name in (stamp.slices if stamp else ())]
        digests |= {of_slice.digest for of_slice in slices if of_slice is not None}
    yield from (path for path in kept if path.parent.name not in used or path.stem.partition("-")[0] not in digests)


def _half_written_files(workspace: Workspace) -> Iterator[UPath]:
    if is_local(workspace.root):  # an object store shows no file before it is whole
        yield from workspace.root.rglob(f"{TEMPORARY}*")


def _glob(folder: UPath, pattern: str) -> Iterator[UPath]:
    """The paths in a folder that match, sorted, without half-written files (which `*` matches too)."""
    if folder.exists():
        yield from sorted((path for path in folder.glob(pattern) if not path.name.startswith(TEMPORARY)), key=str)


def _files(folder: UPath) -> list[UPath]:
    return [path for path in sorted(folder.rglob("*"), key=str) if path.is_file()] if folder.exists() else []


def _age_s(path: UPath) -> float:
    """Seconds since a file was written."""
    written_at = getattr(path.stat(), "st_mtime", 0.0)
    return max(0.0, time.time() - float(written_at))
