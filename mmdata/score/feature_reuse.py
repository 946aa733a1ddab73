"""Reuse what an earlier run of a slice measured: a refresh then scores only what was fetched since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.documents import texts_between
from mmdata.engine.stage_fingerprints import CODE_VERSIONS, TEXT_VERSION
from mmdata.samples import FEATURES
from mmdata.score.caption_vectors import CaptionVectors, distinct_captions
from mmdata.score.picture_scoring import is_pictured
from mmdata.score.scorer import ClipScorer
from mmdata.score.text_refill import TEXT_KEY, has_present_texts, with_present_texts
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace

TEXT_EMBEDDING = "text_embedding"


def features_metadata(
    scorer: ClipScorer, media_metadata: Mapping[bytes, bytes], measures: Sequence[Any] = ()
) -> dict[str, str]:
    """The schema metadata of a features table: which scorer, code and settings made it.

    Args:
        media_metadata: schema metadata of the media table; its settings say how the pictures were stored.
        measures: what beside the scorer decides what is measured (`stage_fingerprints.measure_settings`).
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
        TEXT_KEY: str(TEXT_VERSION),
    }


def reusable_rows(
    workspace: Workspace, part_name: str, slice_name: str, samples: pl.DataFrame, metadata: Mapping[str, str]
) -> pa.Table:
    """The rows of the slice's earlier features table that still hold: same scorer and settings, same media bytes.

    The uid depends on the caption, so a row with the same uid and media has the same features. Rows with a problem
    are not reused: they are tried again. Texts are measured again if an older version of the code measured them.
    `samples` are rows joined with media: uid, caption, status, sha256.

    The result has the schema FEATURES. A table of a version that kept no text embeddings is reused, too: they are null.
    """
    path = workspace.table(part_name, "features", slice_name)
    if not path.exists():
        return FEATURES.empty_table()
    table = read_table(path)
    earlier_metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    made_alike = all(earlier_metadata.get(key) == value for key, value in metadata.items() if key != TEXT_KEY)
    if not made_alike or not set(FEATURES.names) - {TEXT_EMBEDDING} <= set(table.column_names):
        return FEATURES.empty_table()
    media_now = samples.filter(pl.col("status") == "success").select("uid", "sha256")
    earlier = pl.DataFrame(table.select(["uid", "media_sha256", "problem"])).join(media_now, on="uid", how="left")
    still_holds = (pl.col("media_sha256") == pl.col("sha256")) & pl.col("problem").is_null()
    mask = earlier.select(still_holds.fill_null(value=False)).to_series()
    reused = table.filter(mask.to_arrow())
    if TEXT_EMBEDDING not in table.column_names:
        column = FEATURES.field(TEXT_EMBEDDING)
        reused = reused.append_column(column, pa.nulls(len(reused), column.type))
    reused = reused.select(FEATURES.names).replace_schema_metadata(None)
    return reused if has_present_texts(earlier_metadata) else with_present_texts(reused, samples)


def lacks_text_embedding(reused: pa.Table) -> np.ndarray:
    """Which rows have a score and no text embedding, bool N: those of older versions, or of a run that kept none."""
    lacks = pc.and_(pc.is_valid(reused["clip_score"]), pc.is_null(reused[TEXT_EMBEDDING]))
    return lacks.to_numpy(zero_copy_only=False).astype(bool)


def captions_to_embed(samples: pl.DataFrame, reused: pa.Table, keep_texts: bool) -> pl.Series:
    """The distinct captions that a run must embed: of new pictures, and of reused rows without a text embedding.

    Of a new document they are its whole text and the texts between its pictures. They stand in the order of the
    samples, so that a run that only fills embeds the same batches as a first run.
    """
    reused_uids = pl.Series(reused["uid"])
    filled_uids = reused_uids.filter(pl.Series(lacks_text_embedding(reused))) if keep_texts else reused_uids.clear()
    is_new = is_pictured() & ~pl.col("uid").is_in(reused_uids.to_list())
    captions = samples.filter(is_new | pl.col("uid").is_in(filled_uids.to_list()))["caption"]
    marked = samples.filter(is_new)["marked"].drop_nulls() if "marked" in samples.columns else ()
    between = [text for document in marked for text in texts_between(document)]
    return distinct_captions(pl.concat([captions, pl.Series(captions.name, between, captions.dtype)]))


def with_text_embeddings(
    reused: pa.Table, samples: pl.DataFrame, texts: CaptionVectors, keep_texts: bool
) -> list[pa.Table]:
    """Reused rows, in one or two tables, with the text embeddings that they lack; without any if none are kept."""
    place = FEATURES.get_field_index(TEXT_EMBEDDING)
    field = FEATURES.field(place)
    if not keep_texts:
        return [reused.set_column(place, field, pa.nulls(len(reused), field.type))]
    lacks = lacks_text_embedding(reused)
    lacking = reused.filter(pa.array(lacks))
    captions = pl.DataFrame(lacking.select(["uid"])).join(samples, on="uid", how="left", maintain_order="left")
    vectors = texts.column(captions["caption"], np.ones(len(lacking), bool))
    return [reused.filter(pa.array(~lacks)), lacking.set_column(place, field, vectors)]
