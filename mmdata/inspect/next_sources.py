"""Source files: what a look at them would change in the catalogue."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Literal

from mmdata.display import without_credentials
from mmdata.workspace.layout import Catalog, Workspace

What = Literal["new", "changed", "renamed", "removed", "unreadable", "left out"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """A source file that is not as it was.

    Args:
        what: `changed`: other content under the same name; `left out`: corpus.yaml no longer names its source.
        rows: it holds now; of a file that has gone, that it held.
        note: the error of an unreadable file; of a renamed one, its earlier name.
    """

    path: str
    source: str
    what: What
    rows: int
    note: str = ""


class Foreseen(Workspace):
    """A workspace read with the catalogue that a look at the sources would write. Nothing of it is ever written."""

    def __init__(self, workspace: Workspace, catalog: Catalog) -> None:
        super().__init__(workspace.root)
        self._foreseen = catalog

    def catalog(self) -> Catalog:
        return self._foreseen


def file_changes(old: Catalog, new: Catalog, sources: Set[str]) -> list[FileChange]:
    """What is new, changed by content, renamed, gone or unreadable; pure. A touched file of the same content is not.

    Args:
        sources: names of the sources that corpus.yaml has.
    """
    gone = {path: about for path, about in old.files.items() if path not in new.files}
    by_digest = {about["digest"]: path for path, about in gone.items()}
    moved: set[str] = set()
    found: list[FileChange] = []
    for path, about in new.files.items():
        before, source, rows = old.files.get(path), about["source"], about["rows"]
        if source not in sources:
            if about.get("parts"):
                found.append(FileChange(path, source, "left out", rows))
        elif about["status"] == "unreadable":
            found.append(FileChange(path, source, "unreadable", rows, str(about["error"] or "")))
        elif before is None:
            earlier = by_digest.get(about["digest"])
            moved |= {earlier} if earlier else set()
            found.append(FileChange(path, source, "renamed" if earlier else "new", rows, earlier or ""))
        elif before["digest"] != about["digest"]:
            found.append(FileChange(path, source, "changed", rows))
    for path, about in gone.items():
        if path not in moved:
            found.append(FileChange(path, about["source"], "removed", about["rows"]))
    shown = [replace(one, path=without_credentials(one.path), note=without_credentials(one.note)) for one in found]
    return sorted(shown, key=lambda change: (change.what, change.path))
