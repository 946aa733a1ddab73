"""Atomic publish: a reader sees the whole old file or the whole new one, whatever happens to the writer.

On a local disk: write under a temporary name in the same folder, fsync, rename, fsync the folder. On an object
store: write to local disk, then upload in one call, which the store publishes whole. kill -9 leaves a temporary
file (`.tmp-…`) at worst, which nothing ever reads. Folders that are made on the way, and deletions, are fsynced too: a
power cut takes nothing back that something later relies on.

Nothing else in mmdata writes to a workspace or deletes from it. A change is made within the fence of the lease that
covers it (see mmdata.storage.fence).
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from mmdata.storage.fence import fenced

TEMPORARY = ".tmp-"


def is_local(path: UPath) -> bool:
    """Whether the path lies on a disk of this machine."""
    return path.protocol in ("", "file", "local")


@contextmanager
def atomic_path(target: UPath, name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """Give a local file to write; it becomes `target` when the block ends without an error, and not before.

    Args:
        name: gives the last part of the target's path once the file is written: a name by content.
    """
    if is_local(target):
        folder = Path(target.path).parent
        _make_folder(folder)
        draft = folder / f"{TEMPORARY}{secrets.token_hex(6)}-{target.name}"
        try:
            yield draft
            sync(draft)
            final = folder / (name(draft) if name else target.name)
            with fenced(target):
                draft.replace(final)
                sync(folder)
        finally:
            draft.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="mmdata-") as scratch:
        draft = Path(scratch) / target.name
        yield draft
        final = target.with_name(name(draft)) if name else target
        with fenced(target):
            target.fs.put_file(str(draft), final.path)


def publish_bytes(target: UPath, data: bytes) -> None:
    """Publish bytes under a name, atomically."""
    with atomic_path(target) as draft:
        draft.write_bytes(data)


def publish_json(target: UPath, value: Any) -> None:
    """Publish a value as indented JSON, keys sorted, atomically."""
    publish_bytes(target, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def withdraw(*targets: UPath) -> None:
    """Delete files, in order, for good once the call returns; one that is not there is left out."""
    changed: dict[Path, None] = {}
    for target in targets:
        with fenced(target):
            try:
                if is_local(target):
                    Path(target.path).unlink()
                    changed[Path(target.path).parent] = None
                else:
                    target.fs.rm_file(target.path)  # does not look first: what a client remembers may be old
            except FileNotFoundError:
                continue
    for folder in changed:
        sync(folder)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each fsynced into its parent: else a power cut takes it with all it holds."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync(one.parent)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
