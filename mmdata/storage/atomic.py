"""Atomic writes and deletions: a reader sees the whole old file or the whole new one, whatever happens to the writer.

On a local disk: write under a temporary name in the same folder, fsync, rename, fsync the folder. On an object store:
write to local disk, then upload in one call, which makes the object visible whole. kill -9 leaves at worst a temporary
file (`.tmp-…`), which nothing ever reads. New folders and deletions are fsynced too, so that a power cut undoes nothing
that a later step relies on.

Nothing else in mmdata writes to a workspace or deletes from it. Every change happens inside the fence of the lease
that covers it (see mmdata.storage.fence).
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
"""How the name of a file begins that is still being written, or that a killed process left."""


def is_local(path: UPath) -> bool:
    """Whether the path is on a disk of this machine, and not on an object store."""
    return path.protocol in ("", "file", "local")


@contextmanager
def atomic_path(target: UPath, name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """Yield a local file to write, which becomes `target` when the block ends without an error.

    Args:
        name: computes the file name from the written file, for a file that is named by its content.
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
    """Write a file atomically."""
    with atomic_path(target) as draft:
        draft.write_bytes(data)


def publish_json(target: UPath, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, atomically."""
    publish_bytes(target, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def withdraw(*targets: UPath) -> None:
    """Delete files, in order; once the call returns, no power cut brings them back. Missing files are skipped."""
    changed: dict[Path, None] = {}  # a set that keeps its order
    for target in targets:
        with fenced(target):
            try:
                if is_local(target):
                    Path(target.path).unlink()
                    changed[Path(target.path).parent] = None
                else:
                    target.fs.rm_file(target.path)  # without a look first: the client's cache of the listing may be old
            except FileNotFoundError:
                continue
    for folder in changed:
        sync(folder)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each fsynced into its parent: else a power cut could remove it and its files."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync(new.parent)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
