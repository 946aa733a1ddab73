"""What a caption is like by itself: its language, its words, its characters."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import polars as pl

MAX_LANGUAGE_CHARS = 1000  # tells a language as well as a megabyte does

WEB_PERCENT = {
    "en": 45, "ru": 6, "de": 5.6, "ja": 5.2, "zh": 5, "es": 4.6, "fr": 4.4, "it": 2.5, "pt": 2.3, "nl": 1.9, "pl": 1.8,
    "tr": 1.1, "cs": 1.1, "vi": 1, "id": 1, "ko": 0.8, "ar": 0.7, "fa": 0.7, "sv": 0.7, "uk": 0.6, "el": 0.6,
    "hu": 0.6, "ro": 0.6, "da": 0.5, "fi": 0.4, "th": 0.4, "sk": 0.4, "no": 0.35, "bg": 0.3, "he": 0.25, "hr": 0.2,
    "ca": 0.2, "sr": 0.2, "hi": 0.2, "lt": 0.18, "sl": 0.15, "et": 0.14, "lv": 0.1, "bn": 0.1, "ms": 0.05,
}  # fmt: skip
"""Share of web pages by language, in percent, roughly as Common Crawl's own statistics have it."""

OTHER_PERCENT = 0.02
PRIOR_STRENGTH = 0.25  # on captions of ~20 characters: recall of English .50 -> .82, mean over languages .59 -> .61

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
    """Language and its probability for each caption: py3langid (langid.py, Lui & Baldwin 2012) and a weak prior.

    Captions are a few words, on which langid.py by itself takes a third of English for Latin or Pidgin. Its
    probabilities are multiplied by the languages' shares of the web to the power `PRIOR_STRENGTH` and normalised.
    A caption without a letter has no language. Only its first 1,000 characters are looked at.
    """
    return [_detect(caption) for caption in captions]


def _detect(caption: str) -> tuple[str | None, float | None]:
    caption = caption[:MAX_LANGUAGE_CHARS]
    if not any(character.isalpha() for character in caption):
        return None, None
    weighed = {
        code: probability * WEB_PERCENT.get(code, OTHER_PERCENT) ** PRIOR_STRENGTH
        for code, probability in _identifier().rank(caption)
    }
    code = max(weighed, key=weighed.__getitem__)
    return code, min(weighed[code] / sum(weighed.values()), 1.0)


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
