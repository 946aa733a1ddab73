"""How much space a workspace takes, by kind of file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmdata.storage.atomic import TEMPORARY, is_local
from mmdata.workspace.layout import PART_STAGES, Workspace


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Files and bytes of one kind."""

    files: int
    bytes: int


def disk_use(workspace: Workspace) -> dict[str, DiskUse]:
    """Kind -> its files and bytes, the largest first. Reads the size of every file and opens none."""
    files: defaultdict[str, int] = defaultdict(int)
    sizes: defaultdict[str, int] = defaultdict(int)
    for name, size in _files(workspace):
        kind = kind_of(name)
        files[kind] += 1
        sizes[kind] += size
    return {kind: DiskUse(files[kind], sizes[kind]) for kind in sorted(sizes, key=lambda kind: (-sizes[kind], kind))}


def kind_of(name: str) -> str:
    """The kind of a file, by its path within the workspace."""
    steps = name.split("/")
    if steps[-1].startswith(TEMPORARY):
        return "left over by killed processes"
    if steps[0] == "parts" and len(steps) > 3 and steps[2] in PART_STAGES and not name.endswith(".json"):
        return "media" if name.endswith(".tar") else f"{steps[2]} tables"
    if steps[0] == "parts":
        return "stamps"
    return {".dagster": "Dagster's runs", "scores": "kept scores and what they compare with"}.get(
        steps[0], steps[0] if len(steps) > 1 else "catalogue and draft"
    )


def _files(workspace: Workspace) -> Iterator[tuple[str, int]]:
    root = workspace.root
    if is_local(root):
        yield from _local_files(Path(root.path))
        return
    base = root.path.rstrip("/")
    for path, about in root.fs.find(base, detail=True).items():
        yield path.removeprefix(base).lstrip("/"), int(about.get("size") or 0)


def _local_files(root: Path) -> Iterator[tuple[str, int]]:
    waiting = [str(root)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # deleted since it was listed
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield os.path.relpath(entry.path, root), entry.stat(follow_symlinks=False).st_size
            except OSError:
                continue
