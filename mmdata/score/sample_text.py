"""The text of a sample: the caption of its source, a transcript, or a generated caption. Pure functions of its row."""

from __future__ import annotations

import polars as pl

from mmdata.config import Recaption
from mmdata.samples import caption_or_transcript

IS_GENERATED = "text_is_generated"

_OF_THE_TEXT = {
    "clip_score": "generated_score",
    "lang": "generated_lang",
    "lang_prob": "generated_lang_prob",
    "n_words": "generated_n_words",
    "n_chars": "generated_n_chars",
}
"""Column that is about the text of a sample -> the column that holds the same of its generated caption."""

GENERATED_COLUMNS = ("generated_caption", "generated_score")
"""Columns of the features that decide which text a sample has."""


def with_sample_text(frame: pl.DataFrame, recaption: Recaption) -> pl.DataFrame:
    """The frame with the text of each sample as its `caption`, and with what was measured of that text.

    A generated caption is the text of a sample that has no other; with `recaption.use: replace_where_better` also that
    of a picture whose own caption scores lower by more than `recaption.margin`. It is not that of a picture with
    sound: there the sound was made from the picture's own caption.

    Args:
        frame: caption, transcript; where captions are generated also kind, audio_s, clip_score and
            `GENERATED_COLUMNS`. Of the columns that are about the text it may have any: clip_score, lang, lang_prob,
            n_words, n_chars, with those of the generated caption beside them.

    Returns:
        The frame with `IS_GENERATED`, bool. `caption_agreement` is null where the text is generated: there is then no
        other text to agree with.
    """
    if not recaption.is_on:
        return frame.with_columns(caption_or_transcript().alias("caption"), pl.lit(value=False).alias(IS_GENERATED))
    frame = frame.with_columns(is_generated(recaption).alias(IS_GENERATED))
    of_the_text = {"caption": "generated_caption", **{n: g for n, g in _OF_THE_TEXT.items() if n in frame.columns}}
    own = {"caption": caption_or_transcript()}
    columns = [
        pl.when(IS_GENERATED).then(pl.col(generated)).otherwise(own.get(name, pl.col(name))).alias(name)
        for name, generated in of_the_text.items()
    ]
    if "caption_agreement" in frame.columns:
        columns.append(pl.when(~pl.col(IS_GENERATED)).then("caption_agreement").alias("caption_agreement"))
    return frame.with_columns(columns)


def is_generated(recaption: Recaption) -> pl.Expr:
    """Whether the text of a sample is its generated caption, as `with_sample_text` says."""
    has_generated = pl.col("generated_caption").is_not_null()
    is_missing = (caption_or_transcript().str.len_bytes().fill_null(0) == 0) & has_generated
    if recaption.use == "keep_both":
        return is_missing
    margin = pl.lit(recaption.margin, pl.Float32)
    is_better = has_generated & (pl.col("generated_score") > pl.col("clip_score") + margin)
    is_silent_picture = (pl.col("kind") == "image") & pl.col("audio_s").is_null()
    return is_missing | (is_better & is_silent_picture).fill_null(value=False)
