"""The scores that `select.filter` can name, each as an expression over joined rows."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mmdata.config.select_scores import ScoreKind
from mmdata.documents import PICTURED
from mmdata.samples import source_number

_OF_SOUND = ("audio_rms_db", "silence_ratio", "speech_ratio")
_OF_SPEECH = ("audio_score", "speech_overlap")
_OF_TEXT = ("lang_prob", "n_words", "n_chars")


def score_column(name: str) -> str:
    """The column that holds a named score, in candidates and in the selection."""
    return name if name == "clip_score" else f"score_{name}"


def score_value(name: str, scores: Mapping[str, ScoreKind]) -> pl.Expr:
    """A score: Float32, null where no rule on it applies, NaN where a sample ought to have it and does not.

    Scores of pictures apply to pictures and clips; of sound, to what has sound; of speech, to sound with a caption.
    A number of the source applies where the source gives one, or everywhere if it is `required`.

    Args:
        name: of a score in `scores`, a measure of the features tables, or a score of the stage `features`.
        scores: `select.scores`.
    """
    kind = scores.get(name)
    if kind is not None and kind.kind == "column":
        number = source_number(kind.column)
        return _finite(number if not kind.required else number.fill_null(float("nan")))
    heard = pl.col("audio_s").is_not_null()
    captioned = (pl.col("caption").str.len_bytes() > 0).fill_null(value=False)
    applies = pl.col("kind").is_in(PICTURED)
    if kind is None and name in _OF_TEXT:
        applies = captioned
    elif kind is None and name in (*_OF_SOUND, *_OF_SPEECH):
        applies = heard & captioned if name in _OF_SPEECH else heard
    held = pl.col(name if kind is None and name in STORED_AS_NAMED else score_column(name))
    return pl.when(applies).then(_finite(held.fill_null(float("nan"))))


STORED_AS_NAMED = frozenset({"clip_score", "sharpness", "aspect", *_OF_SOUND, *_OF_SPEECH, *_OF_TEXT})
"""Measures whose column in the features tables has their name."""


def _finite(value: pl.Expr) -> pl.Expr:
    value = value.cast(pl.Float32)
    return pl.when(value.is_infinite()).then(float("nan")).otherwise(value)
