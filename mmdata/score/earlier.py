"""What an earlier run of a slice measured and still holds: a refresh scores only what it fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from mmdata.engine.freshness import CODE_VERSIONS
from mmdata.samples import FEATURES
from mmdata.score.scorer import ClipScorer
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import PartStage, Workspace

MADE_WITH = "made_with"
"""Schema metadata of a features table: code version and media settings. Where they differ nothing is kept."""


def table_marks(scorer: ClipScorer, media_marks: Mapping[bytes, bytes], measures: Sequence[Any] = ()) -> dict[str, str]:
    """The schema metadata of a features table: whose scores it holds, and what they were made with.

    Args:
        media_marks: schema metadata of the media table; its settings say how the stored pictures came about.
        measures: what beside the scorer decides what is measured.
    """
    made_with: dict[str, Any] = {
        "code": CODE_VERSIONS["features"],
        "media": {k.decode(): v.decode() for k, v in media_marks.items() if k.endswith(b"settings")},
    }
    if measures:
        made_with["measures"] = list(measures)
    return {
        "scorer": json.dumps({"name": scorer.name, "fingerprint": scorer.fingerprint}, sort_keys=True),
        MADE_WITH: json.dumps(made_with, sort_keys=True),
    }


def earlier_rows(
    workspace: Workspace, part_name: str, slice_name: str, samples: pl.DataFrame, marks: Mapping[str, str]
) -> pa.Table:
    """The rows of the slice's earlier table that hold: the same scorer and settings, and byte for byte the same media.

    A uid stands for its caption, so a row with the same uid and media has the same features. Rows with a problem are
    tried again.

    Args:
        samples: rows joined with media: uid, status, sha256.
    """
    stage: PartStage = "features"
    path = workspace.table(part_name, stage, slice_name)
    if not path.exists():
        return FEATURES.empty_table()
    table = read_table(path)
    known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if any(known.get(key) != value for key, value in marks.items()) or table.column_names != FEATURES.names:
        return FEATURES.empty_table()
    now = samples.filter(pl.col("status") == "success").select("uid", "sha256")
    held = pl.DataFrame(table.select(["uid", "media_sha256", "problem"])).join(now, on="uid", how="left")
    same = held.select((pl.col("media_sha256") == pl.col("sha256")) & pl.col("problem").is_null()).to_series()
    return table.filter(same.fill_null(value=False).to_arrow()).replace_schema_metadata(None)
