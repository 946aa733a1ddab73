"""Measures the texts of reused rows again when the code that measures texts has changed: no medium is read for it."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from mmdata.engine.stage_fingerprints import TEXT_VERSION
from mmdata.score.text_measures import text_features

TEXT_KEY = "text_version"
"""Schema metadata of a features table: `stage_fingerprints.TEXT_VERSION` of the code that measured its texts."""


def has_present_texts(metadata: Mapping[str, str]) -> bool:
    """Whether the present code measured the texts of a table, by its schema metadata."""
    return metadata.get(TEXT_KEY) == str(TEXT_VERSION)


def with_present_texts(reused: pa.Table, samples: pl.DataFrame) -> pa.Table:
    """The rows of a features table with lang, lang_prob, n_words and n_chars measured again; other columns stay.

    Args:
        reused: uid, transcript and the columns of text.
        samples: the rows: uid, caption.
    """
    captions = pl.DataFrame(reused.select(["uid"])).join(
        samples.select("uid", "caption"), on="uid", how="left", maintain_order="left"
    )["caption"]
    transcripts = pl.Series(reused["transcript"])
    texts = text_features(pl.select(pl.coalesce(captions, transcripts)).to_series())
    for name in texts.columns:
        place = reused.schema.get_field_index(name)
        field = reused.schema.field(place)
        reused = reused.set_column(place, field, texts[name].to_arrow().cast(field.type))
    return reused
