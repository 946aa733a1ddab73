"""Reuse what an earlier run of a slice measured: a refresh then scores only what was fetched since."""

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
from mmdata.workspace.layout import Workspace


def features_metadata(
    scorer: ClipScorer, media_metadata: Mapping[bytes, bytes], measures: Sequence[Any] = ()
) -> dict[str, str]:
    """The schema metadata of a features table: which scorer, code and settings made it.

    Args:
        media_metadata: schema metadata of the media table; its settings say how the pictures were stored.
        measures: what beside the scorer decides what is measured (`freshness.measure_settings`).
    """
    made_with: dict[str, Any] = {
        "code": CODE_VERSIONS["features"],
        "media": {k.decode(): v.decode() for k, v in media_metadata.items() if k.endswith(b"settings")},
    }
    if measures:
        made_with["measures"] = list(measures)
    return {
        "scorer": json.dumps({"name": scorer.name, "fingerprint": scorer.fingerprint}, sort_keys=True),
        "made_with": json.dumps(made_with, sort_keys=True),
    }


def reusable_rows(
    workspace: Workspace, part_name: str, slice_name: str, samples: pl.DataFrame, metadata: Mapping[str, str]
) -> pa.Table:
    """The rows of the slice's earlier features table that still hold: same scorer and settings, same media bytes.

    The uid depends on the caption, so a row with the same uid and media has the same features. Rows with a problem
    are not reused: they are tried again. `samples` are rows joined with media: uid, status, sha256.
    """
    path = workspace.table(part_name, "features", slice_name)
    if not path.exists():
        return FEATURES.empty_table()
    table = read_table(path)
    earlier_metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    made_alike = all(earlier_metadata.get(key) == value for key, value in metadata.items())
    if not made_alike or table.column_names[: len(FEATURES)] != FEATURES.names:
        return FEATURES.empty_table()
    table = table.select(FEATURES.names)  # what stands after these was made by passes of their own
    media_now = samples.filter(pl.col("status") == "success").select("uid", "sha256")
    earlier = pl.DataFrame(table.select(["uid", "media_sha256", "problem"])).join(media_now, on="uid", how="left")
    still_holds = (pl.col("media_sha256") == pl.col("sha256")) & pl.col("problem").is_null()
    mask = earlier.select(still_holds.fill_null(value=False)).to_series()
    return table.filter(mask.to_arrow()).replace_schema_metadata(None)
