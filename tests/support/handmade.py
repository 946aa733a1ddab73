"""A part whose rows a test gives directly, ready to be fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.config.source_filter import SourceFilter
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
from mmdata.engine.stage_fingerprints import rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.samples import ROWS, sample_uid, table_of
from mmdata.workspace.layout import Catalog, Part, Workspace

COLUMNS = {
    "laion": None,
    "video": {"url": "u", "caption": "c", "start_s": "s", "end_s": "e"},
    "audio": {"url": "u"},
    "text": {"caption": "c"},
    "documents": None,
}


class HandmadePart:
    """A workspace with one part whose rows are given: `w-000000`.

    Args:
        slices: for each slice its rows: dicts of url, caption and whatever else ROWS holds.
        source: keys of the source.
        sections: other sections of the configuration.
    """

    name = "w-000000"

    def __init__(
        self,
        folder: Path,
        slices: list[list[dict[str, Any]]],
        *,
        source: dict[str, Any] | None = None,
        sections: dict[str, Any] | None = None,
        **download: Any,
    ) -> None:
        settings = {"allow_hosts": ["127.0.0.0/8"], "timeout_s": 0.5, "deadline_s": 1.0, "retries": 0, **download}
        self.corpus: Corpus = parse_corpus(
            {
                "workspace": str(folder / "workspace"),
                "sources": [_source(folder, **(source or {}))],
                "download": settings,
                **(sections or {}),
            }
        )
        self.workspace = Workspace(self.corpus.workspace)
        part = Part(self.name, "w", "in.parquet", 0, sum(map(len, slices)), "digest")
        self.workspace.write_catalog(Catalog(parts={self.name: part}))
        rows_settings = stage_settings(self.corpus, part, "rows")
        stamps = {}
        for number, rows in enumerate(slices):
            table = table_of([self._row(row, position) for position, row in enumerate(rows)], ROWS)
            name = f"{number:04d}"
            stamps[name] = publish_slice(self.workspace, self.name, "rows", name, "made", SliceResult(table))
        stamp_part(self.workspace, self.name, "rows", fingerprint(rows_settings, rows_input(part)), stamps, None)

    def with_download(self, **changes: Any) -> None:
        """Change settings of the download section."""
        download = self.corpus.download.model_copy(update=changes)
        self.corpus = self.corpus.model_copy(update={"download": download})

    def with_sections(self, **sections: Any) -> None:
        """Replace sections of the configuration, such as clips or privacy."""
        self.corpus = self.corpus.model_copy(update=sections)

    def with_filter(self, **rules: Any) -> None:
        """Replace the filter of the source; without rules there is none."""
        source = self.corpus.sources[0].model_copy(update={"filter": SourceFilter(**rules) if rules else None})
        self.corpus = self.corpus.model_copy(update={"sources": [source]})

    def _row(self, row: dict[str, Any], position: int) -> dict[str, Any]:
        caption = row.get("caption", f"caption {position}")
        defaults = {"source": "w", "part": self.name, "kind": "image", "copies": 1, "row": position, "extra": "{}"}
        uid = sample_uid(row["url"], caption, row.get("start_s"), row.get("end_s"))
        return {**defaults, "uid": uid, "caption": caption, **row}


def _source(folder: Path, kind: str = "laion", **more: Any) -> dict[str, Any]:
    columns = {} if COLUMNS[kind] is None else {"columns": COLUMNS[kind]}
    return {"name": "w", "kind": kind, "files": str(folder / "*.parquet"), **columns, **more}
