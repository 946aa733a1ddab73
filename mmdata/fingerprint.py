"""Fingerprints, which identify the inputs and settings of a result in 16 hex digits, and the SHA-256 of files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from pathlib import Path

    from upath import UPath


def fingerprint(*parts: Any) -> str:
    """Hash of JSON values and pydantic models, independent of key order: 16 hex digits (64 bits of SHA-256)."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def file_sha256(path: Path | UPath) -> str:
    """SHA-256 of the bytes of a file, in hex; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_md5(path: Path | UPath) -> str:
    """MD5 of the bytes of a file, in hex. Data sets list it; it does not resist an attacker as SHA-256 does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def canonical_json(value: Any) -> str:
    """The JSON text of a value with sorted keys, without spaces; non-ASCII characters are kept."""
    return _ENCODER.encode(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be fingerprinted: give plain values or pydantic models")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
