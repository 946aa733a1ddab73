"""Measures of a caption without its picture: language, words, characters."""

from __future__ import annotations

import polars as pl

from mmdata.samples import count_words
from mmdata.score.languages import detect_languages


def text_features(captions: pl.Series) -> pl.DataFrame:
    """Measure captions; each distinct caption is measured once.

    Args:
        captions: strings, null where there is none.

    Returns:
        One row per caption, in order: lang (ISO 639-1, null where the caption has no letters), lang_prob (0..1),
        n_words, n_chars; all null where the caption is null.
    """
    captions = captions.cast(pl.String).alias("caption")
    distinct = captions.drop_nulls().unique(maintain_order=True)
    languages = detect_languages(distinct)
    measures = pl.DataFrame(
        {"caption": distinct, "lang": [code for code, _ in languages], "lang_prob": [prob for _, prob in languages]},
        schema={"caption": pl.String, "lang": pl.String, "lang_prob": pl.Float32},
    ).with_columns(n_words=count_words(pl.col("caption")), n_chars=pl.col("caption").str.len_chars().cast(pl.Int32))
    return captions.to_frame().join(measures, on="caption", how="left", maintain_order="left").drop("caption")
