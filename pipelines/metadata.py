"""Turns stage reports into what the Dagster UI shows: figures, tables, pictures, column schemas."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg

from mmdata.display import shown
from mmdata.stage import StageReport

MAX_IMAGE_BYTES = 20_000  # larger pictures make every page of the UI slow
MAX_TABLE_ROWS = 100

LINEAGE: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "rows": {},
    "media": {"uid": (("source_rows", "uid"),), "sha256": (("source_rows", "url"),)},
    "features": {
        "uid": (("source_rows", "uid"),),
        "clip_score": (("media", "sha256"), ("source_rows", "caption")),
        "embedding": (("media", "sha256"),),
        "text_embedding": (("source_rows", "caption"),),
        "phash": (("media", "sha256"),),
        "lang": (("source_rows", "caption"),),
        "n_words": (("source_rows", "caption"),),
    },
    "selection": {
        "uid": (("features", "uid"),),
        "clip_score": (("features", "clip_score"),),
        "keep": (("features", "clip_score"), ("features", "phash"), ("features", "embedding")),
        "cluster": (("features", "embedding"),),
    },
    "shards": {
        "uid": (("selection", "uid"),),
        "repeats": (("selection", "repeats"),),
        "split": (("selection", "split"),),
    },
}
"""Stage -> column of its table -> the (asset, column) pairs that it is made from."""


def to_result(report: StageReport, *checks: dg.AssetCheckResult) -> dg.MaterializeResult:
    """A report as the result of its asset."""
    # the version tells Dagster that a run changed nothing, so that what follows stays in sync
    version = None if report.version is None else dg.DataVersion(report.version)
    return dg.MaterializeResult(metadata=to_metadata(report), check_results=list(checks), data_version=version)


def to_metadata(report: StageReport) -> dict[str, Any]:
    """A report as metadata: main figures first, then pictures, text, tables and paths.

    Text from outside goes only into plain-text cells; the stages escape it in the Markdown that they write.
    """
    metadata: dict[str, Any] = {}
    if "rows" in report.counts:
        metadata["dagster/partition_row_count" if report.part else "dagster/row_count"] = report.counts["rows"]
    metadata |= {name: dg.MetadataValue.int(int(count)) for name, count in report.counts.items()}
    metadata |= {name: dg.MetadataValue.float(float(f"{number:.4g}")) for name, number in report.numbers.items()}
    if report.part is not None:
        metadata["slices done"] = report.slices_done
        metadata["slices reused"] = report.slices_reused
    metadata |= {name: image(name, data) for name, data in report.images.items()}
    metadata |= {name: dg.MetadataValue.md(text) for name, text in report.text.items()}
    if report.reasons:
        ordered = sorted(report.reasons.items(), key=lambda item: (-item[1], item[0]))
        metadata["reasons"] = table([{"reason": reason, "rows": count} for reason, count in ordered])
    metadata |= {name: table(rows) for name, rows in report.tables.items() if rows}
    metadata |= {name: _path_or_url(path) for name, path in report.paths.items()}
    return metadata | _column_metadata(report.stage)


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Flat dicts with the same keys as a table; at most the first MAX_TABLE_ROWS are shown."""
    records = [dg.TableRecord({key: _cell(value) for key, value in row.items()}) for row in rows[:MAX_TABLE_ROWS]]
    kinds = {key: _kind([record.data[key] for record in records]) for key in rows[0]}
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in kinds.items()])
    return dg.MetadataValue.table(records, schema=schema)


def image(name: str, data: bytes) -> dg.MetadataValue:
    """An SVG, PNG or JPEG as Markdown with the bytes in it."""
    if len(data) > MAX_IMAGE_BYTES:
        return dg.MetadataValue.text(f"{len(data):,} bytes: too large to be shown here")
    kinds = ((b"<svg", "svg+xml"), (b"\x89PNG", "png"))
    kind = next((name for start, name in kinds if data.startswith(start)), "jpeg")
    alt = "".join(letter if letter.isalnum() else " " for letter in name)
    return dg.MetadataValue.md(f"![{alt}](data:image/{kind};base64,{base64.b64encode(data).decode()})")


def _path_or_url(path: str) -> dg.MetadataValue:
    path = shown(path)
    return dg.MetadataValue.url(path) if path.startswith(("http://", "https://")) else dg.MetadataValue.path(path)


def _cell(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, int | float | bool) or value is None else shown(str(value))


def _kind(cells: list[Any]) -> str:
    kinds = {type(cell) for cell in cells if cell is not None}
    names = {bool: "bool", int: "int", float: "float"}
    if kinds <= {int, float} and len(kinds) == 2:
        return "float"
    return names.get(kinds.pop(), "string") if len(kinds) == 1 else "string"


def _column_metadata(stage: str) -> dict[str, Any]:
    from mmdata.samples import COLUMNS

    if stage not in COLUMNS:
        return {}
    columns = [
        dg.TableColumn(name, str(kind), description, dg.TableColumnConstraints(nullable=nullable))
        for name, kind, description, nullable in COLUMNS[stage]
    ]
    metadata: dict[str, Any] = {"dagster/column_schema": dg.TableSchema(columns=columns)}
    if lineage := LINEAGE[stage]:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(asset_key=asset, column_name=name) for asset, name in sources]
                for column, sources in lineage.items()
            }
        )
    return metadata
