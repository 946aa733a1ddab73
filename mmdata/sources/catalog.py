"""The catalogue: the list of source files, and the parts that they are cut into."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

from upath import UPath

from mmdata.config import Corpus, Source
from mmdata.display import without_credentials
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import file_sha256, fingerprint
from mmdata.optout.lists import update_standing
from mmdata.optout.state import opt_out_digest
from mmdata.sources.captions import captions_of
from mmdata.sources.patterns import folder_columns
from mmdata.sources.source_files import Contents, find_files, look_into, seen_state
from mmdata.stage import StageReport
from mmdata.workspace.layout import Catalog, FileEntry, Part, Workspace

READER_VERSION = 2  # raise it if the same file would be counted or judged differently
MAX_REPORTED_FILES = 100


class SeenCaptions(NamedTuple):
    """What the timed captions of a source look like from outside, and the digest of their content."""

    state: str
    digest: str


def update_catalog(corpus: Corpus, workspace: Workspace) -> StageReport:
    """Look at every source file and bring the catalogue up to date.

    A source that matches no file, or of which no file has the needed columns, stops no other source: it is listed as
    unreadable, with its error, and its parts stay as they are.

    A file is identified by its content, which is hashed again only if its size or modification time (on an object
    store: its ETag) has changed. The parts of a changed file keep their names as far as their ranges still exist; their
    digests differ then, so they are stale. Parts whose range or file no longer exists are marked `removed`; the parts
    of a renamed file follow it. An empty or damaged file, or one without the needed columns, is listed with that
    status and its error, and stops nothing else; parts that an unreadable file gave earlier stay as they are.

    Raises:
        UserError: an opt-out list cannot be read, two sources match the same file, or no source has a file with the
            needed columns. The catalogue is not changed then.
    """
    opt_out_counts = update_standing(corpus.optout, workspace)
    old = workspace.catalog()
    new = look_at_sources(corpus, workspace, old)
    if (new.files, new.parts) != (old.files, old.parts):
        workspace.write_catalog(new)
    names = {source.name for source in corpus.sources}
    return _report(workspace, new, names, _changes(old.parts, new.parts), opt_out_counts)


def look_at_sources(corpus: Corpus, workspace: Workspace, old: Catalog, *, may_write: bool = True) -> Catalog:
    """The catalogue of the source files as they are now, not yet written. Raises as `update_catalog` does.

    Args:
        may_write: whether an index of captions and their digests may be written to the workspace; without it, damage
            to captions is noticed later.
    """
    names = {source.name for source in corpus.sources}
    listed = {source.name: _list_files(source) for source in corpus.sources}
    paths_by_source = {name: paths for name, (paths, _) in listed.items()}
    _check_claims(paths_by_source)
    files: dict[str, FileEntry] = {}
    for source in corpus.sources:
        paths = paths_by_source[source.name]
        if not paths:
            files |= {path: entry for path, entry in old.files.items() if entry["source"] == source.name}
            files[without_credentials(source.patterns[0])] = _without_files(source, listed[source.name][1])
            continue
        look = partial(
            look_at, source, old_files=old.files, captions=_look_at_captions(source, workspace, old.files, may_write)
        )
        with ThreadPoolExecutor(min(8, len(paths), 2 * (os.cpu_count() or 1))) as pool:
            files |= zip(map(str, paths), pool.map(look, paths), strict=True)
    _check_columns(corpus.sources, files)
    parts = dict(old.parts)
    for source in corpus.sources:
        entries = {path: entry for path, entry in files.items() if entry["source"] == source.name}
        if not paths_by_source[source.name]:
            continue  # a folder that is not mounted has no files; its parts stay
        parts = cut_parts(source, entries, parts)
    for path, entry in files.items():
        entry["parts"] = sorted(part.name for part in parts.values() if part.path == path and not part.removed)
    others = {path: entry for path, entry in old.files.items() if entry["source"] not in names}
    return Catalog(others | files, dict(sorted(parts.items())))


def look_at(
    source: Source, path: UPath, old_files: Mapping[str, FileEntry], captions: SeenCaptions | DataError | None = None
) -> FileEntry:
    """The catalogue's entry of one file; an unchanged file keeps its old entry.

    Args:
        old_files: the entries of the last catalogue, by path.
        captions: the source's timed captions, which count as content of the file; or the error in them.
    """
    before = old_files.get(str(path))
    further = [value for value in (source.header, source.keep_columns, _filter_of(source)) if value is not None]
    reading = fingerprint(READER_VERSION, source.kind, source.columns, source.part_rows, *further)
    folders = folder_columns(str(path))
    size: int | None
    seen: str | None
    try:
        if isinstance(captions, DataError):
            raise captions
        size, seen = seen_state(path)
        is_same = before is not None and (before.get("bytes"), before.get("seen")) == (size, seen)
        captions_digest = captions.digest if captions else None
        is_known = before is not None and before.get("captions_digest") == captions_digest
        if before and is_same and is_known and before.get("reading") == reading:
            entry: FileEntry = {**before, "source": source.name}
            return _with_captions(entry, captions)
        if before and is_same and not captions:
            digest = before["digest"]
        else:
            digest = file_sha256(path)
            if captions or folders:
                digest = fingerprint(digest, *filter(None, (captions_digest, folders)))
        contents = look_into(source, path, size)
        if seen_state(path) != (size, seen):
            raise OSError("it changed while it was read")
    except (OSError, DataError) as error:
        message = f"{path}: cannot be read ({error}). Remedy: `mmdata build` when the file is complete."
        size = seen = captions = None
        digest = before.get("digest") if before else None
        contents = Contents("unreadable", error=str(error) if isinstance(error, DataError) else message)
    entry = {
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
    }
    return _with_captions(entry, captions)


def _filter_of(source: Source) -> list[Any] | None:
    """What of the source's filter decides whether a file has the columns that it needs."""
    return ["filter", source.filter.columns, source.filter.missing] if source.filter else None


def _with_captions(entry: FileEntry, captions: SeenCaptions | None) -> FileEntry:
    if captions:
        entry["captions"], entry["captions_digest"] = captions
    return entry


def _look_at_captions(
    source: Source, workspace: Workspace, old_files: Mapping[str, FileEntry], may_write: bool
) -> SeenCaptions | DataError | None:
    """The captions of a source; they are read only if their state is not the one of the last catalogue."""
    captions = captions_of(source, workspace)
    if captions is None:
        return None
    try:
        state = captions.state()
        if may_write:
            captions.write_index()
        entries = [entry for entry in old_files.values() if entry["source"] == source.name]
        digests = (entry.get("captions_digest") for entry in entries if entry.get("captions") == state)
        digest = next(filter(None, digests), None) or captions.digest(may_write)
        if captions.has_changed(state):
            raise OSError("it changed while it was read")
        return SeenCaptions(state, digest)
    except DataError as error:
        return error
    except OSError as error:
        return DataError(
            f"{source.captions}: cannot be read ({error}). Remedy: correct `captions` of source {source.name} "
            "in corpus.yaml."
        )


def cut_parts(source: Source, files: Mapping[str, FileEntry], parts: Mapping[str, Part]) -> dict[str, Part]:
    """All parts, with those of one source brought up to date by the entries of its files. Pure."""
    old_parts = [part for part in parts.values() if part.source == source.name]
    new_paths = _renamed(files, old_parts)
    unmatched = {(new_paths.get(part.path, part.path), part.start): part for part in old_parts}
    last_number = max((int(part.name.rpartition("-")[2]) for part in old_parts), default=-1)
    result = dict(parts)
    for path, entry in sorted(files.items()):
        for start in range(0, entry["rows"], source.part_rows):
            stop = min(start + source.part_rows, entry["rows"])
            before = unmatched.pop((path, start), None)
            if before is None:
                last_number += 1
            name = before.name if before is not None else f"{source.name}-{last_number:06d}"
            # only an unreadable file has no digest, and it has no rows
            result[name] = Part(name, source.name, path, start, stop, entry["digest"] or "")
    for (path, _), part in unmatched.items():
        if path not in files or files[path]["status"] != "unreadable":
            result[part.name] = replace(part, removed=True)
    return result


def _renamed(files: Mapping[str, FileEntry], parts: Sequence[Part]) -> dict[str, str]:
    """Old path -> new path of each file that is missing while a new file has the same content."""
    old = {part.path: part.digest for part in parts if not part.removed}
    gone = {digest: path for path, digest in sorted(old.items(), reverse=True) if path not in files}
    old_paths = {part.path for part in parts}
    new = {entry["digest"]: path for path, entry in sorted(files.items(), reverse=True) if path not in old_paths}
    return {gone[digest]: new[digest] for digest in gone.keys() & new.keys()}


def _check_claims(paths_by_source: Mapping[str, Sequence[UPath]]) -> None:
    owners: dict[str, str] = {}
    for source, paths in paths_by_source.items():
        for path in paths:
            owner = owners.setdefault(str(path), source)
            if owner != source:
                raise UserError(
                    f"{path} belongs to source {owner} and to source {source}. "
                    "Remedy: make their `files` in corpus.yaml exclude each other."
                )


def _list_files(source: Source) -> tuple[list[UPath], str]:
    """The files of a source, sorted; and why there are none. A store that does not answer stops no other source."""
    try:
        return find_files(source), "no file matches it"
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own for what cannot be reached
        return [], f"cannot be listed ({without_credentials(f'{type(error).__name__}: {error}')})"


def _without_files(source: Source, why: str) -> FileEntry:
    """The entry of a source that has no file; its place is the pattern."""
    place = ", ".join(map(without_credentials, source.patterns))
    error = (
        f"source {source.name}: {place}: {why}. Remedy: correct `files` in corpus.yaml, or make the place reachable."
    )
    return {
        "source": source.name,
        "bytes": None,
        "seen": None,
        "reading": "",
        "digest": None,
        "rows": 0,
        "status": "unreadable",
        "error": error,
        "lacks_columns": True,
        "offsets": [],
    }


def bad_sources(sources: Sequence[Source], files: Mapping[str, FileEntry]) -> dict[str, str]:
    """Source -> error, for each source that has no file, or none that can be read and has the needed columns.

    Args:
        files: the entries of the catalogue, by path.
    """
    bad: dict[str, str] = {}
    for source in sources:
        without_files = files.get(without_credentials(source.patterns[0]))
        if without_files is not None and without_files.get("lacks_columns") and without_files.get("bytes") is None:
            bad[source.name] = str(without_files["error"])
            continue
        entries = [entry for entry in files.values() if entry["source"] == source.name]
        statuses = {entry.get("status") for entry in entries}
        if "unreadable" in statuses and "ok" not in statuses:
            lacking = [entry for entry in entries if entry.get("lacks_columns")]
            problem = "has the needed columns" if lacking else "can be read"
            bad[source.name] = f"source {source.name}: none of its files {problem}. {(lacking or entries)[0]['error']}"
    return bad


def _check_columns(sources: Sequence[Source], files: Mapping[str, FileEntry]) -> None:
    bad = bad_sources(sources, files)
    lacking = {entry["source"] for entry in files.values() if entry.get("lacks_columns")}
    if bad and lacking.issuperset(bad) and len(bad) == len(sources):
        raise UserError("\n".join(bad.values()))


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
    workspace: Workspace, catalog: Catalog, sources: set[str], changes: dict[str, int], opt_out_counts: dict[str, int]
) -> StageReport:
    files = {path: entry for path, entry in catalog.files.items() if entry["source"] in sources}
    statuses = Counter(entry["status"] for entry in files.values())
    live = [part for part in catalog.live_parts() if part.source in sources]
    listed = [
        {
            "file": path.rpartition("/")[2],
            "source": entry["source"],
            "status": entry["status"],
            "rows": entry["rows"],
            "parts": len(entry.get("parts", ())),
            "error": entry["error"] or "",
        }
        for path, entry in sorted(files.items(), key=lambda item: (item[1]["status"] == "ok", item[0]))
    ]
    counts = {"rows": sum(part.stop - part.start for part in live), "parts": len(live), "files": len(files)}
    counts |= {f"files_{status}": statuses[status] for status in ("ok", "empty", "unreadable")} | changes
    return StageReport(
        "source_catalog",
        counts=counts | {f"opt_out_{kind}": count for kind, count in opt_out_counts.items()},
        reasons={f"file_{status}": statuses[status] for status in ("empty", "unreadable") if statuses[status]},
        tables={"files": listed[:MAX_REPORTED_FILES]},
        paths={"catalog": str(workspace.catalog_path)},
        version=fingerprint([asdict(part) for part in live], opt_out_digest(workspace)),
    )
