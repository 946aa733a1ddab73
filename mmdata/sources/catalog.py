"""The catalogue: which source files there are, and the parts that are cut from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from upath import UPath

from mmdata.config import Corpus, Source
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import fingerprint
from mmdata.optout.lists import update_standing
from mmdata.sources.captions import captions_of
from mmdata.sources.source_files import find_files, look_into, seen_state, sha256_of
from mmdata.stage import StageReport
from mmdata.workspace.layout import Catalog, Part, Workspace

READER_VERSION = 1  # raised when the same file would be counted or judged otherwise
SHOWN = 100  # files listed in the report


def update_catalog(corpus: Corpus, workspace: Workspace) -> StageReport:
    """Look at every source file and bring the catalogue up to date.

    A file is known by its content, which is hashed anew only where size or time of change (on an object store: ETag)
    differ. A changed file keeps the names of the parts whose ranges it still has; their digests then differ, so they
    are stale. Ranges and files that are gone leave their parts `removed`; a file that was renamed takes its parts
    along. A file that is empty, broken or without the needed columns is kept with that status and its error, and
    holds nothing else up; what an unreadable file gave before stays, until a person decides.

    Raises:
        UserError: an opt-out list cannot be read, a source's pattern matches no file, none of its files has the needed
            columns, or two sources claim one file. The catalogue is then as before.
    """
    left_out = update_standing(corpus.optout, workspace)
    old = workspace.catalog()
    new = look_at_sources(corpus, workspace, old)
    if (new.files, new.parts) != (old.files, old.parts):
        workspace.write_catalog(new)
    names = {source.name for source in corpus.sources}
    return _report(workspace, new, names, _changes(old.parts, new.parts), left_out)


def look_at_sources(corpus: Corpus, workspace: Workspace, old: Catalog, *, may_write: bool = True) -> Catalog:
    """What the catalogue would be after a look at every source file. See `update_catalog`, which raises the same.

    Args:
        may_write: whether an index of captions may be made in the workspace; without it, broken captions show up later.
    """
    names = {source.name for source in corpus.sources}
    found = {source.name: find_files(source) for source in corpus.sources}
    _check_claims(found)
    files: dict[str, dict[str, Any]] = {}
    for source in corpus.sources:
        paths = found[source.name]
        look = partial(look_at, source, known=old.files, captions=_look_at_captions(source, workspace, may_write))
        with ThreadPoolExecutor(min(8, len(paths), 2 * (os.cpu_count() or 1))) as pool:
            files |= zip(map(str, paths), pool.map(look, paths), strict=True)
        _check_columns(source, [files[str(path)] for path in paths])
    parts = dict(old.parts)
    for source in corpus.sources:
        mine = {path: about for path, about in files.items() if about["source"] == source.name}
        parts = cut_parts(source, mine, parts)
    for path, about in files.items():
        about["parts"] = sorted(p.name for p in parts.values() if p.path == path and not p.removed)
    others = {path: dict(about) for path, about in old.files.items() if about["source"] not in names}
    return Catalog(others | files, dict(sorted(parts.items())))


def look_at(
    source: Source, path: UPath, known: Mapping[str, Mapping[str, Any]], captions: str | DataError | None = None
) -> dict[str, Any]:
    """The catalogue's entry of one file, taken from what is `known` as far as nothing has changed.

    Args:
        captions: state of the source's timed captions, which count as content of its index; or what is wrong with them.
    """
    before = known.get(str(path), {})
    reading = fingerprint(READER_VERSION, source.kind, source.columns, source.part_rows)
    try:
        if isinstance(captions, DataError):
            raise captions
        size, seen = seen_state(path)
        same = (before.get("bytes"), before.get("seen")) == (size, seen)
        if same and (before.get("reading"), before.get("captions")) == (reading, captions):
            return {**before, "source": source.name}
        digest = sha256_of(path) if captions or not same else before["digest"]
        if captions:
            digest = fingerprint(digest, captions)
        contents = look_into(source, path, size)
        if seen_state(path) != (size, seen):
            raise OSError("it changed while it was read")
    except (OSError, DataError) as error:
        unread = f"{path}: cannot be read ({error}). Remedy: look again when it is whole."
        return {
            "source": source.name,
            "bytes": None,
            "seen": None,
            "reading": reading,
            "digest": before.get("digest"),
            "rows": 0,
            "status": "unreadable",
            "error": str(error) if isinstance(error, DataError) else unread,
            "lacks_columns": False,
            "offsets": [],
        }
    return {
        "source": source.name,
        "bytes": size,
        "seen": seen,
        "reading": reading,
        "digest": digest,
        "rows": contents.rows,
        "status": contents.status,
        "error": contents.error,
        "lacks_columns": contents.lacks_columns,
        "offsets": contents.offsets,
    } | ({"captions": captions} if captions else {})


def _look_at_captions(source: Source, workspace: Workspace, may_index: bool) -> str | DataError | None:
    captions = captions_of(source, workspace)
    try:
        return captions.state(may_index) if captions else None
    except DataError as error:
        return error
    except OSError as error:
        return DataError(
            f"{source.captions}: cannot be read ({error}). Remedy: correct `captions` of source {source.name} "
            "in corpus.yaml."
        )


def cut_parts(source: Source, files: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Part]) -> dict[str, Part]:
    """A source's parts brought up to date; pure. Parts of other sources come back as they are.

    Args:
        files: entries of the source's files, by path.
    """
    mine = [part for part in parts.values() if part.source == source.name]
    heirs = _renamed(files, mine)
    known = {(heirs.get(part.path, part.path), part.start): part for part in mine}
    last = max((int(part.name.rpartition("-")[2]) for part in mine), default=-1)
    result = dict(parts)
    for path, about in sorted(files.items()):
        for start in range(0, about["rows"], source.part_rows):
            stop = min(start + source.part_rows, about["rows"])
            before = known.pop((path, start), None)
            if before is None:
                last += 1
            name = before.name if before is not None else f"{source.name}-{last:06d}"
            result[name] = Part(name, source.name, path, start, stop, about["digest"])
    for (path, _), part in known.items():
        if path not in files or files[path]["status"] != "unreadable":
            result[part.name] = replace(part, removed=True)
    return result


def _renamed(files: Mapping[str, Mapping[str, Any]], parts: Sequence[Part]) -> dict[str, str]:
    """Old path -> new path of the files that have gone and come back under another name, with the same content."""
    old = {part.path: part.digest for part in parts if not part.removed}
    gone = {digest: path for path, digest in sorted(old.items(), reverse=True) if path not in files}
    known = {part.path for part in parts}
    new = {about["digest"]: path for path, about in sorted(files.items(), reverse=True) if path not in known}
    return {gone[digest]: new[digest] for digest in gone.keys() & new.keys()}


def _check_claims(found: Mapping[str, Sequence[UPath]]) -> None:
    owners: dict[str, str] = {}
    for source, paths in found.items():
        for path in paths:
            owner = owners.setdefault(str(path), source)
            if owner != source:
                raise UserError(
                    f"{path} belongs to source {owner} and to source {source}. "
                    "Remedy: make their `files` in corpus.yaml exclude each other."
                )


def _check_columns(source: Source, entries: Sequence[Mapping[str, Any]]) -> None:
    readable = [about for about in entries if about["status"] == "ok" or about["lacks_columns"]]
    if readable and all(about["lacks_columns"] for about in readable):
        raise UserError(f"source {source.name}: none of its files has the needed columns. {readable[0]['error']}")


def _changes(old: Mapping[str, Part], new: Mapping[str, Part]) -> dict[str, int]:
    changes = Counter({"parts_added": 0, "parts_changed": 0, "parts_removed": 0})
    for name, part in new.items():
        before = old.get(name)
        if before is None or (before.removed and not part.removed):
            changes["parts_added"] += 1
        elif part.removed and not before.removed:
            changes["parts_removed"] += 1
        elif (part.digest, part.start, part.stop) != (before.digest, before.start, before.stop):
            changes["parts_changed"] += 1
    return dict(changes)


def _report(
    workspace: Workspace, catalog: Catalog, sources: set[str], changes: dict[str, int], left_out: Mapping[str, int]
) -> StageReport:
    files = {path: about for path, about in catalog.files.items() if about["source"] in sources}
    statuses = Counter(about["status"] for about in files.values())
    live = [part for part in catalog.live_parts() if part.source in sources]
    listed = [
        {
            "file": path.rpartition("/")[2],
            "source": about["source"],
            "status": about["status"],
            "rows": about["rows"],
            "parts": len(about["parts"]),
            "error": about["error"] or "",
        }
        for path, about in sorted(files.items(), key=lambda item: (item[1]["status"] == "ok", item[0]))
    ]
    counts = {"rows": sum(part.stop - part.start for part in live), "parts": len(live), "files": len(files)}
    return StageReport(
        "source_catalog",
        counts=counts
        | {f"files_{status}": statuses[status] for status in ("ok", "empty", "unreadable")}
        | changes
        | {f"opt_out_{kind}": count for kind, count in left_out.items()},
        reasons={f"file_{status}": statuses[status] for status in ("empty", "unreadable") if statuses[status]},
        tables={"files": listed[:SHOWN]},
        paths={"catalog": str(workspace.catalog_path)},
    )
