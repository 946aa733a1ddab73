"""Fingerprints (what a result was made from, in sixteen hex digits) and the SHA-256 of files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from pathlib import Path

    from upath import UPath


def fingerprint(*parts: Any) -> str:
    """Hash any JSON-able values and pydantic models, key order aside. 16 hex digits (64 bits of SHA-256)."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def file_sha256(path: Path | UPath) -> str:
    """SHA-256 of a file's bytes, in hex; the file is never in memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, non-ASCII kept."""
    return _ENCODER.encode(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be fingerprinted: give plain values or pydantic models")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
