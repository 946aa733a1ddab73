"""Garbage collection: old releases, shards that no release names, and what killed processes left lying.

What is kept: the latest release, the pinned ones, the newest few, and the one in the making. Only then is a shard
garbage when none of these names it. The order of deletion keeps every remaining release whole at every instant: a
manifest goes before anything else of its release, and a shard only once no manifest names it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from upath import UPath

from mmdata.errors import UserError
from mmdata.releases.listing import published
from mmdata.releases.pins import pins
from mmdata.storage.atomic import TEMPORARY, is_local, withdraw
from mmdata.workspace.layout import Workspace, read_json
from mmdata.workspace.lease import leased
from mmdata.workspace.media_tar import unaddressed

GRACE_S = 86_400.0  # a build that was killed goes on from shards that no release names yet


@dataclass(frozen=True, slots=True)
class Garbage:
    """What goes, or would go.

    Args:
        releases: ids, the newest first.
        abandoned: ids of releases that were begun and never published.
        shards, tars, leftovers: files. `tars`: media that no table addresses; `leftovers`: half-written files.
        bytes: of all the files.
        busy: parts that a build works on; they were left alone.
    """

    releases: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    shards: tuple[UPath, ...] = ()
    tars: tuple[UPath, ...] = ()
    leftovers: tuple[UPath, ...] = ()
    bytes: int = 0
    busy: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        names = ("releases", "abandoned", "shards", "tars", "leftovers")
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
    """Delete what nothing needs any more.

    Args:
        keep: how many of the newest releases stay, whatever else stays; at least 1.
        dry_run: only say what would go.
        grace_s: age in seconds under which shards that no release has named, and half-written files, are left alone.
        wait_s: seconds to wait for a build that is at work on a release.
        drop: releases that go though they are among the newest.

    Raises:
        UserError: a build is at work on a release; or `drop` names the latest release or a pinned one.
    """
    with leased(workspace, "release", "garbage collection", wait_s=wait_s):
        garbage = find_garbage(workspace, keep, grace_s=grace_s, drop=drop)
        if dry_run:
            return garbage
        for name in (*garbage.releases, *garbage.abandoned):
            _remove_release(workspace.release_dir(name))
        staying = {path.name for path in _listed(workspace.shards_dir, "*.tar")} - {
            path.name for path in garbage.shards
        }
        notes = list(_listed(workspace.shards_dir / "recipes", "*.json"))
        withdraw(*[note for note in notes if (read_json(note) or {}).get("name") not in staying])
        withdraw(*garbage.shards, *garbage.leftovers)
    return _with_tars(workspace, garbage)


def find_garbage(
    workspace: Workspace, keep: int, *, grace_s: float = GRACE_S, drop: frozenset[str] = frozenset()
) -> Garbage:
    """What nothing needs any more; see `collect_garbage`."""
    manifests = published(workspace)
    newest_first = [str(one["release_id"]) for one in manifests]
    going = _releases_to_go(workspace, newest_first, keep, drop)
    draft = str((read_json(workspace.draft_path) or {}).get("release_id"))
    folders = [one.name for one in _listed(workspace.releases_dir, "*") if one.is_dir()]
    abandoned = sorted(set(folders) - {*newest_first, draft})
    shards_of = {str(one["release_id"]): {shard["name"] for shard in one["shards"]} for one in manifests}
    if draft not in shards_of:
        made = read_json(workspace.release_dir(draft) / "shards.json")
        shards_of[draft] = {shard["name"] for shard in made["shards"]} if made else set()
    named = {name for release, names in shards_of.items() if release not in going for name in names}
    freed = {name for release in going for name in shards_of[release]} - named
    shards = [
        path
        for path in _listed(workspace.shards_dir, "*.tar")
        if path.name in freed or (path.name not in named and _age_s(path) >= grace_s)
    ]
    tars = [path for part in _parts(workspace) for path in _unaddressed(workspace, part)]
    leftovers = [path for path in _leftovers(workspace) if _age_s(path) >= grace_s]
    files = [path for name in (*going, *abandoned) for path in _files(workspace.release_dir(name))]
    sizes = {str(path): path.stat().st_size for path in (*files, *shards, *tars, *leftovers)}
    return Garbage(tuple(going), tuple(abandoned), tuple(shards), tuple(tars), tuple(leftovers), sum(sizes.values()))


def _releases_to_go(workspace: Workspace, newest_first: list[str], keep: int, drop: frozenset[str]) -> list[str]:
    latest, pinned = workspace.latest(), set(pins(workspace))
    if wrong := sorted(drop & {str(latest), *pinned}):
        what = "the latest release" if wrong[0] == latest else "pinned"
        raise UserError(f"{wrong[0]} is {what} and is not deleted. Remedy: publish another first, or unpin it.")
    stays = {latest, *pinned, *[one for one in newest_first if one not in drop][: max(1, keep)]}
    return [one for one in newest_first if one not in stays]


def _remove_release(folder: UPath) -> None:
    """The manifest first: from then on it is no release, whatever is left of it."""
    withdraw(folder / "manifest.json")
    withdraw(*_files(folder))
    if is_local(folder):  # an object store has no folders
        for below in sorted((one for one in folder.rglob("*") if one.is_dir()), key=str, reverse=True):
            below.rmdir()
        folder.rmdir()


def _with_tars(workspace: Workspace, garbage: Garbage) -> Garbage:
    """Remove the media that no table addresses, part by part; a part that is being worked on is left alone."""
    busy: list[str] = []
    parts = dict.fromkeys(path.parent.parent.name for path in garbage.tars)
    for part in parts:
        try:
            with leased(workspace, f"part-{part}", "garbage collection"):
                withdraw(*_unaddressed(workspace, part))
        except UserError:
            busy.append(part)
    return replace(garbage, busy=tuple(busy))


def _unaddressed(workspace: Workspace, part: str) -> list[UPath]:
    rows = workspace.part_stamp(part, "rows")
    return unaddressed(workspace, part, rows.slices) if rows else []  # it is being worked on, or about to be


def _parts(workspace: Workspace) -> list[str]:
    return [one.name for one in _listed(workspace.root / "parts", "*")]


def _leftovers(workspace: Workspace) -> Iterator[UPath]:
    """Files that a killed process had not finished; on an object store nothing is seen before it is whole."""
    if is_local(workspace.root):
        yield from workspace.root.rglob(f"{TEMPORARY}*")


def _listed(folder: UPath, pattern: str) -> Iterator[UPath]:
    if folder.exists():  # half-written files have names of their own, which `*` matches too
        yield from sorted((one for one in folder.glob(pattern) if not one.name.startswith(TEMPORARY)), key=str)


def _files(folder: UPath) -> list[UPath]:
    return [path for path in sorted(folder.rglob("*"), key=str) if path.is_file()] if folder.exists() else []


def _age_s(path: UPath) -> float:
    """Seconds since a file was written."""
    facts = path.stat()
    written = getattr(facts, "st_mtime", 0.0)
    return max(0.0, time.time() - float(written))
