"""How the source files differ from the catalogue."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Literal

from mmdata.display import without_credentials
from mmdata.workspace.layout import Catalog, Workspace

FileState = Literal["new", "changed", "renamed", "removed", "unreadable", "left out"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """A source file that differs from the catalogue.

    Args:
        what: `changed`: other content under the same name; `left out`: corpus.yaml no longer names its source.
        rows: the number of rows now; for a removed file, before.
        note: the error of an unreadable file, or the earlier name of a renamed one.
    """

    path: str
    source: str
    what: FileState
    rows: int
    note: str = ""


class PlannedWorkspace(Workspace):
    """A workspace with the catalogue that the next build would write; only for reading."""

    def __init__(self, workspace: Workspace, catalog: Catalog) -> None:
        super().__init__(workspace.root)
        self._catalog = catalog

    def catalog(self) -> Catalog:
        return self._catalog


def file_changes(old: Catalog, new: Catalog, sources: Set[str]) -> list[FileChange]:
    """The files that differ between two catalogues, by content; a file with only a new time does not.

    Args:
        sources: names of the sources in corpus.yaml.
    """
    gone = {path: entry for path, entry in old.files.items() if path not in new.files}
    by_digest = {entry["digest"]: path for path, entry in gone.items()}
    moved: set[str] = set()
    changes: list[FileChange] = []
    for path, entry in new.files.items():
        before, source, rows = old.files.get(path), entry["source"], entry["rows"]
        if source not in sources:
            if entry.get("parts"):
                changes.append(FileChange(path, source, "left out", rows))
        elif entry["status"] == "unreadable":
            changes.append(FileChange(path, source, "unreadable", rows, str(entry["error"] or "")))
        elif before is None:
            earlier = by_digest.get(entry["digest"])
            moved |= {earlier} if earlier else set()
            changes.append(FileChange(path, source, "renamed" if earlier else "new", rows, earlier or ""))
        elif before["digest"] != entry["digest"]:
            changes.append(FileChange(path, source, "changed", rows))
    for path, entry in gone.items():
        if path not in moved:
            changes.append(FileChange(path, entry["source"], "removed", entry["rows"]))
    public = [replace(c, path=without_credentials(c.path), note=without_credentials(c.note)) for c in changes]
    return sorted(public, key=lambda change: (change.what, change.path))
