"""A small corpus of source files for the tests of mmdata.sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.sources.catalog import update_catalog
from mmdata.stage import StageReport
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace


def captions_json(*rows: tuple[float, float, str]) -> dict[str, list[Any]]:
    """Captions as HowTo100M's JSON has them."""
    return {"start": [r[0] for r in rows], "end": [r[1] for r in rows], "text": [r[2] for r in rows]}


@dataclass
class Inbox:
    """Source files in a folder, and the corpus that reads them."""

    folder: Path
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def corpus(self) -> Corpus:
        source = {"name": "web", "kind": "laion", "files": str(self.folder / "inbox/*"), **self.source}
        return parse_corpus(
            {"workspace": str(self.folder / "workspace"), "sources": [source], "score": {"model": "demo"}}
        )

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.corpus.workspace)

    def path(self, name: str) -> Path:
        (self.folder / "inbox").mkdir(exist_ok=True)
        return self.folder / "inbox" / name

    def parquet(self, name: str, columns: Mapping[str, Any], row_group_size: int = 10) -> Path:
        pq.write_table(pa.table(dict(columns)), self.path(name), row_group_size=row_group_size)
        return self.path(name)

    def pairs(self, name: str, count: int, first: int = 0) -> Path:
        """A LAION file of sound rows."""
        numbers = range(first, first + count)
        urls = [f"http://example.com/{n}.jpg" for n in numbers]
        return self.parquet(name, {"URL": urls, "TEXT": [f"caption {n}" for n in numbers]})

    def text(self, name: str, content: str | bytes) -> Path:
        data = content.encode() if isinstance(content, str) else content
        self.path(name).write_bytes(data)
        return self.path(name)

    def look(self) -> StageReport:
        return update_catalog(self.corpus, self.workspace)

    def live(self) -> list[str]:
        return [part.name for part in self.workspace.catalog().live_parts()]

    def read(self, part: str) -> StageReport:
        return read_part(self.corpus, self.workspace, part)

    def rows(self, parts: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All rows of some parts (all of them, read first, by default), by their place in the files."""
        if parts is None:
            self.look()
            parts = self.live()
            for part in parts:
                self.read(part)
        rows: list[dict[str, Any]] = []
        for part in parts:
            stamp = self.workspace.part_stamp(part, "rows")
            assert stamp is not None
            for name in stamp.slices:
                rows += read_table(self.workspace.table(part, "rows", name)).to_pylist()
        return sorted(rows, key=lambda row: (row["part"], row["row"]))


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)
