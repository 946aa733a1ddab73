"""What a caption is like by itself: its language, its words, its characters."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import polars as pl

MAX_LANGUAGE_CHARS = 1000  # tells a language as well as a megabyte does

_CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
_WORD = r"[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]+"


def text_features(captions: pl.Series) -> pl.DataFrame:
    """Measure captions, each distinct one once.

    Args:
        captions: strings, null where there is none.

    Returns:
        As many rows, in order: lang (ISO 639-1, null where nothing is written in letters), lang_prob (0..1),
        n_words (one a CJK character, else what whitespace parts), n_chars; all null where the caption is.
    """
    captions = captions.cast(pl.String).alias("caption")
    distinct = captions.drop_nulls().unique(maintain_order=True)
    languages = detect_languages(distinct)
    known = pl.DataFrame(
        {"caption": distinct, "lang": [code for code, _ in languages], "lang_prob": [prob for _, prob in languages]},
        schema={"caption": pl.String, "lang": pl.String, "lang_prob": pl.Float32},
    ).with_columns(
        n_words=count_words(pl.col("caption")),
        n_chars=pl.col("caption").str.len_chars().cast(pl.Int32),
    )
    return captions.to_frame().join(known, on="caption", how="left", maintain_order="left").drop("caption")


def count_words(captions: pl.Expr) -> pl.Expr:
    """Words of a caption: one for each CJK character, and each run of other characters between spaces. int32.

    Cuts as `mmdata.samples.estimate_tokens` does.
    """
    return (captions.str.count_matches(_CJK) + captions.str.count_matches(_WORD)).cast(pl.Int32)


def detect_languages(captions: Iterable[str]) -> list[tuple[str | None, float | None]]:
    """Language and its probability for each caption, by py3langid (langid.py, Lui & Baldwin 2012).

    A caption without a letter has no language. Only its first 1,000 characters are looked at.
    """
    return [_detect(caption) for caption in captions]


def _detect(caption: str) -> tuple[str | None, float | None]:
    caption = caption[:MAX_LANGUAGE_CHARS]
    if not any(character.isalpha() for character in caption):
        return None, None
    code, probability = _identifier().classify(caption)
    return code, min(float(probability), 1.0)


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
