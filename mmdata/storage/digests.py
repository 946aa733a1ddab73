"""A SHA-256 beside each file of weights, as `sha256sum` writes it: a changed byte is an error, not another model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmdata.fingerprint import file_sha256

SUFFIX = ".sha256"


def write_digests(paths: Iterable[Path]) -> None:
    """Write `<file>.sha256` beside each file; `sha256sum -c` reads it."""
    for path in paths:
        path.with_name(path.name + SUFFIX).write_text(f"{file_sha256(path)}  {path.name}\n", encoding="utf-8")


def changed_file(paths: Iterable[Path]) -> str | None:
    """What is wrong with the first file that is not as its digest says; None if all are.

    A file without a digest beside it, as older versions wrote it, is not checked.
    """
    for path in paths:
        digest = path.with_name(path.name + SUFFIX)
        if not digest.exists():
            continue
        if not path.exists():
            return f"{path} is missing"
        if digest.read_text(encoding="utf-8", errors="replace").split(" ")[0] != file_sha256(path):
            return f"{path}: its bytes have changed since it was written"
    return None
