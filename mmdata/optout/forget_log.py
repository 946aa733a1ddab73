"""The log of forgotten samples: append-only, signed by name, each entry chained to the one before; hashes only.

takedown/log.jsonl                     one entry a line
takedown/forgotten/000001.parquet      the hashes of entry 1: kind, hash
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from upath import UPath

from mmdata.errors import DataError
from mmdata.fingerprint import canonical_json
from mmdata.storage.atomic import publish_bytes
from mmdata.workspace.layout import Workspace

FIRST_BEFORE = "0" * 64
"""The value of `before` in the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Args:
        what: `forget`: the samples have to be removed; `done`: the samples of entry `of` have left all parts.
        counts: `samples` found in the parts, and how many of them are `near` duplicates.
    """

    number: int  # counted from 1, without gaps
    what: Literal["forget", "done"]
    at: str  # time in UTC, ISO format
    by: str  # name of the person who signs
    reason: str = ""
    of: int | None = None  # for `done`, the number of the entry that it finishes
    hashes: str = ""  # digest of the entry's table of hashes
    selectors: Mapping[str, int] = field(default_factory=dict)  # kind -> how many selectors were given
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)  # part -> number of its samples
    releases: Sequence[str] = ()  # published releases that contain or show some of the samples
    before: str = FIRST_BEFORE  # `digest` of the entry before
    digest: str = ""  # SHA-256 of all other fields, 64 hex digits


def log_path(workspace: Workspace) -> UPath:
    """The log of what was forgotten."""
    return workspace.root / "takedown" / "log.jsonl"


def forgotten_path(workspace: Workspace, number: int) -> UPath:
    """The table of hashes of an entry."""
    return workspace.root / "takedown" / "forgotten" / f"{number:06d}.parquet"


def read_log(workspace: Workspace) -> list[Entry]:
    """All entries, after the chain has been checked.

    Raises:
        DataError: a line was changed, removed, inserted or moved; names the line.
    """
    path = log_path(workspace)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    entries: list[Entry] = []
    before = FIRST_BEFORE
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        try:
            data = json.loads(line)
            entry = Entry(**{**data, "releases": tuple(data["releases"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number}: is not an entry of the log ({error}). {_REMEDY}") from None
        if (entry.number, entry.before, entry.digest) != (number, before, digest_of(entry)):
            raise DataError(f"{path}, line {number}: does not follow from the line before. {_REMEDY}")
        entries.append(entry)
        before = entry.digest
    return entries


_REMEDY = "The log was changed by something other than mmdata. Remedy: restore it from a copy."


def append(workspace: Workspace, entry: Entry) -> Entry:
    """Add an entry, and fill in its number, time and chain. The caller must hold the lease `release`.

    Raises:
        DataError: the log has been tampered with; nothing is written.
    """
    entries = read_log(workspace)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = entries[-1].digest if entries else FIRST_BEFORE
    entry = replace(entry, number=len(entries) + 1, at=now, before=before)
    entry = replace(entry, digest=digest_of(entry))
    lines = [canonical_json(asdict(line)) for line in (*entries, entry)]
    publish_bytes(log_path(workspace), ("\n".join(lines) + "\n").encode())
    return entry


def digest_of(entry: Entry) -> str:
    """The value that the field `digest` of an entry must have."""
    data = {name: value for name, value in asdict(entry).items() if name != "digest"}
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def unfinished(entries: Sequence[Entry]) -> list[Entry]:
    """The entries whose samples may still be in some part."""
    finished = {entry.of for entry in entries if entry.what == "done"}
    return [entry for entry in entries if entry.what == "forget" and entry.number not in finished]
