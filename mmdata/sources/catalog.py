"""The catalogue: which source files there are, and the parts that are cut from them."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from upath import UPath

from mmdata.config import Corpus, Source
from mmdata.errors import DataError, MMDataError, UserError
from mmdata.publish import is_local
from mmdata.sources.columns import columns_of
from mmdata.sources.files import column_names, count_rows
from mmdata.stage import StageReport
from mmdata.workspace import Catalog, Part, Workspace

_CHUNK_BYTES = 1 << 20


def update_catalog(corpus: Corpus, workspace: Workspace) -> StageReport:
    """Look at every source file and bring the catalogue up to date.

    A file is known by its content: one that was only touched changes nothing. A changed file keeps the names of its
    parts, whose digests then differ (they are stale); rows that are gone leave their parts `removed`. A file that is
    empty, broken or without the needed columns is kept with that status and its error, and holds nothing else up.

    Raises:
        UserError: a source's pattern matches no file, or none of its files has the needed columns.
    """
    old = workspace.catalog()
    files: dict[str, dict[str, Any]] = {}
    parts = dict(old.parts)
    changes: Counter[str] = Counter()
    for source in corpus.sources:
        paths = list(_matches(source.files))
        if not paths:
            raise UserError(
                f"source {source.name}: no file matches {source.files}. Remedy: correct `files` in corpus.yaml"
            )
        for path in paths:
            files[str(path)] = _look(source, path, old.files.get(str(path)))
        if all(files[str(path)]["status"] == "unreadable" for path in paths):
            first = files[str(paths[0])]["error"]
            raise UserError(f"source {source.name}: none of its {len(paths)} file(s) can be read. The first: {first}")
        for path in paths:
            changes.update(_cut(source, str(path), files[str(path)], parts))
    for part in list(parts.values()):
        if part.path not in files and not part.removed:
            parts[part.name] = _removed(part)
            changes["parts_removed"] += 1
    new = Catalog(files, parts)
    if (new.files, new.parts) != (old.files, old.parts):
        workspace.write_catalog(new)
    return _report(workspace, new, changes)


def _look(source: Source, path: UPath, known: Any) -> dict[str, Any]:
    """What the catalogue says of one file; its content is hashed only if its size or time changed."""
    facts = path.stat()
    stat = facts.as_info() if hasattr(facts, "as_info") else {}
    seen = stat.get("ETag") or stat.get("etag") or stat.get("mtime") or getattr(facts, "st_mtime_ns", None)
    about: dict[str, Any] = {"source": source.name, "bytes": int(facts.st_size), "seen": str(seen)}
    shape = [source.kind, source.columns]
    if known is not None and {k: known.get(k) for k in about} == about and known.get("shape") == shape:
        return dict(known)
    about |= {"shape": shape, "digest": _sha256(path), "rows": 0, "error": None, "parts": []}
    try:
        columns_of(source, names, str(path)) if (names := column_names(path)) or about["bytes"] else None
        about["rows"] = count_rows(path)
        about["status"] = "ok" if about["rows"] else "empty"
    except MMDataError as error:
        about |= {"status": "unreadable", "error": str(error)}
    return about


def _cut(source: Source, path: str, about: dict[str, Any], parts: dict[str, Part]) -> Iterator[str]:
    """Bring a file's parts up to date, in place; yields what changed, to be counted."""
    mine = sorted((p for p in parts.values() if p.path == path and p.source == source.name), key=lambda p: p.name)
    if about["status"] == "unreadable":
        return  # what was read before stays as it is; whether to take it out is a person's decision
    ranges = [(low, min(low + source.part_rows, about["rows"])) for low in range(0, about["rows"], source.part_rows)]
    for number, (start, stop) in enumerate(ranges):
        if number < len(mine):
            name, kind = mine[number].name, "parts_changed"
        else:
            name, kind = _next_name(source, parts), "parts_added"
        part = Part(name, source.name, path, start, stop, about["digest"])
        if parts.get(name) != part:
            yield kind
        parts[name] = part
    for part in mine[len(ranges) :]:
        if not part.removed:
            yield "parts_removed"
        parts[part.name] = _removed(part)
    about["parts"] = [p.name for p in parts.values() if p.path == path and p.source == source.name and not p.removed]


def _next_name(source: Source, parts: dict[str, Part]) -> str:
    numbers = [int(p.name.removeprefix(f"{source.name}-")) for p in parts.values() if p.source == source.name]
    return f"{source.name}-{max(numbers, default=-1) + 1:06d}"


def _removed(part: Part) -> Part:
    return Part(part.name, part.source, part.path, part.start, part.stop, part.digest, removed=True)


def _matches(pattern: str) -> Iterator[UPath]:
    """The files of a glob, sorted, on any file system."""
    path = UPath(pattern)
    if is_local(path):
        found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - takes absolute patterns with ** anywhere
        yield from (UPath(one) for one in found if UPath(one).is_file())
    else:
        yield from (UPath(f"{path.protocol}://{one}") for one in sorted(path.fs.glob(path.path)))


def _sha256(path: UPath) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()


def _report(workspace: Workspace, catalog: Catalog, changes: Counter[str]) -> StageReport:
    statuses = Counter(f"files_{about['status']}" for about in catalog.files.values())
    live = catalog.live_parts()
    counts = {"files": len(catalog.files), "parts": len(live), "rows": sum(p.stop - p.start for p in live)}
    faults = [
        {"file": path.rpartition("/")[2], "status": about["status"], "error": about["error"] or "0 rows"}
        for path, about in catalog.files.items()
        if about["status"] != "ok"
    ]
    return StageReport(
        "source_catalog",
        counts=counts | dict(sorted(statuses.items())) | dict(sorted(changes.items())),
        reasons=Counter(f"file_{fault['status']}" for fault in faults),
        tables={"files not read": faults[:100]} if faults else {},
        paths={"catalog": str(workspace.catalog_path)},
    )
