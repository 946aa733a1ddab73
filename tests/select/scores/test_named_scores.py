"""To which rows each score applies, and what counts as lacking."""

from __future__ import annotations

import math

import polars as pl

from mmdata.config.select_scores import SourceColumn
from mmdata.select.scores.named_scores import score_column, score_value

ROWS = {
    "kind": ["image", "video", "audio", "text", "image"],
    "caption": ["a", None, "b", "c", ""],
    "audio_s": [None, 2.0, 3.0, None, None],
    "clip_score": pl.Series([0.3, None, None, None, math.inf], dtype=pl.Float32),
    "audio_score": pl.Series([None, 0.1, None, None, None], dtype=pl.Float32),
    "speech_ratio": pl.Series([None, 0.5, None, None, None], dtype=pl.Float32),
    "n_words": [1, 0, 1, None, 0],
    "score_sim": pl.Series([0.5, math.nan, 0.5, None, None], dtype=pl.Float32),
    "extra": ['{"similarity": "0.25"}', '{"similarity": "high"}', "{}", None, '{"similarity": NaN}'],
}


def values(name: str, scores: dict | None = None) -> list[float | str | None]:
    column = pl.DataFrame(ROWS).select(score_value(name, scores or {}).alias("value"))["value"]
    assert column.dtype == pl.Float32
    return ["lacks" if value is not None and math.isnan(value) else value for value in column]


def test_scores_of_pictures_apply_to_pictures_and_clips() -> None:
    assert values("clip_score") == [float(pl.Series([0.3], dtype=pl.Float32)[0]), "lacks", None, None, "lacks"]
    assert values("sim") == [0.5, "lacks", None, None, "lacks"]


def test_scores_of_sound_apply_to_what_has_sound_and_scores_of_speech_to_captioned_sound() -> None:
    assert values("speech_ratio") == [None, 0.5, "lacks", None, None]
    assert values("audio_score") == [None, None, "lacks", None, None]


def test_scores_of_text_apply_to_what_has_a_caption() -> None:
    assert values("n_words") == [1.0, None, 1.0, "lacks", None]


def test_a_number_of_the_source_applies_where_there_is_one_or_everywhere_if_it_is_required() -> None:
    free, required = (SourceColumn(kind="column", column="similarity", required=flag) for flag in (False, True))
    assert values("published", {"published": free}) == [0.25, None, None, None, None]
    assert values("published", {"published": required}) == [0.25, "lacks", "lacks", "lacks", "lacks"]


def test_the_cosine_has_a_column_of_its_own() -> None:
    assert (score_column("clip_score"), score_column("sim")) == ("clip_score", "score_sim")
