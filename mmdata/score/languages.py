"""Tells in which language a caption is written: two detectors and the web's shares of the languages vote together.

docs/decisions.md has the recall and precision for each language, measured on labelled captions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from mmdata.score.language_tables import (
    ALSO_LATIN,
    MERGED,
    ODDS,
    OTHER_LANGUAGE_PERCENT,
    RELATIVES,
    SCRIPTS,
    WEB_PERCENT,
)

MAX_LANGUAGE_CHARS = 1000  # of a caption that are read to detect its language; more text adds time, not accuracy
BATCH = 4096  # captions that are decided together

PRIOR_STRENGTH = 0.2  # exponent of the shares of the web
ELDC_WEIGHT = 12.0  # what a difference of eldc's scores, which lie in [0, 1], adds to a log-likelihood
UNKNOWN_GAP = 0.05  # how far a language that eldc does not know stands behind eldc's best
LEAST_LIKELY = 1e-20
LOGOGRAM_LETTERS = 2  # letters that a Han, Kana or Hangul character counts as

Detected = tuple[str | None, float | None]


def detect_languages(captions: Iterable[str]) -> list[Detected]:
    """Language (ISO 639-1, or 639-3 where it has no such code) and its probability for each caption.

    The log-likelihood of a language is the sum of what langid.py says (Lui & Baldwin 2012, as py3langid: about 130
    languages), of what eldc says (60 languages, better on few words), and of the logarithm of a prior. Only languages
    of the script that most letters belong to take part. A caption without a letter has no language. Only its first
    1,000 characters are read. The result depends on nothing but the caption.
    """
    texts = [caption[:MAX_LANGUAGE_CHARS] for caption in captions]
    return [
        detected for start in range(0, len(texts), BATCH) for detected in _detect_batch(texts[start : start + BATCH])
    ]


def _detect_batch(texts: Sequence[str]) -> Iterator[Detected]:
    model = _model()
    scores = model.log_likelihoods(texts) + model.eldc_terms(texts) + model.log_prior
    scores[~model.is_in_script(texts)] = -np.inf
    best = scores.argmax(axis=1)
    probabilities = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    for text, code, probability in zip(texts, best, probabilities, strict=True):
        has_letter = any(character.isalpha() for character in text)
        yield (model.codes[code], min(float(probability), 1.0)) if has_letter else (None, None)


@functools.cache
def _model() -> _Model:
    return _Model()


class _Model:
    """The two detectors, and tables over the C languages that langid.py knows. Captions are rows (N)."""

    def __init__(self) -> None:
        import eldc
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._langid: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        eldc.init()
        self._eldc: Any = eldc.instance()
        self._eldc.set_scores(eldc.MAX_SCORES)
        self.codes = sorted({MERGED.get(code, code) for code in self._langid.labels} - {"zxx"})  # zxx: no language
        self._place = {code: place for place, code in enumerate(self.codes)}
        self._langid_place = {code: self._place.get(MERGED.get(code, code)) for code in self._langid.labels}
        self._eldc_place = {code: self._place[code] for code in eldc.LANGUAGES if code in self._place}
        self._relatives = {
            self._place[code]: [self._eldc_place[near] for near in relatives.split() if near in self._eldc_place]
            for code, relatives in RELATIVES.items()
            if code in self._place
        }
        shares = [WEB_PERCENT.get(code, OTHER_LANGUAGE_PERCENT) for code in self.codes]
        self.log_prior = PRIOR_STRENGTH * np.log(shares)  # float64 C
        for code, odds in ODDS.items():
            self.log_prior[self._place[code]] += np.log(odds)
        self._in_script = self._languages_of_scripts()

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        """Of langid.py: float64 N,C. Its probabilities are already tempered by the length of the text."""
        likelihoods = np.zeros((len(texts), len(self.codes)))
        for row, text in enumerate(texts):
            for code, probability in self._langid.rank(text):
                if (place := self._langid_place[code]) is not None:
                    likelihoods[row, place] += probability
        return np.log(np.maximum(likelihoods, LEAST_LIKELY))

    def eldc_terms(self, texts: Sequence[str]) -> np.ndarray:
        """What eldc adds: float64 N,C, 0 for its best language and less for the others; 0 where it says nothing."""
        scores = np.full((len(texts), len(self.codes)), np.nan)
        scores[:, list(self._eldc_place.values())] = 0.0
        for row, text in enumerate(texts):
            for code, score in self._eldc.detect_details(text).scores.items():
                if code in self._eldc_place:
                    scores[row, self._eldc_place[code]] = score
        best = np.nanmax(scores, axis=1, keepdims=True)
        is_unknown = np.isnan(scores).any(axis=0)
        own = scores.copy()
        for place, relatives in self._relatives.items():
            scores[:, place] = np.fmax(scores[:, place], own[:, relatives].max(axis=1))
        gaps = np.where(is_unknown, np.fmax(scores - best, -UNKNOWN_GAP), scores - best)
        return np.where(best > 0, ELDC_WEIGHT * gaps, 0.0)

    def is_in_script(self, texts: Sequence[str]) -> np.ndarray:
        """Whether a language is written in the script of most letters of the text: bool N,C."""
        column = pl.col("text")
        counts = {name: column.str.count_matches(rf"\p{{{name}}}") for name in self._in_script if name != "Kana"}
        kana = column.str.count_matches(r"[\p{Hiragana}\p{Katakana}]")
        counts["Kana"] = pl.when(kana > 0).then(kana + counts["Han"]).otherwise(0)
        for name in ("Kana", "Han", "Hangul"):
            counts[name] = counts[name] * LOGOGRAM_LETTERS
        frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
        letters = frame.select(counts[name].alias(name) for name in self._in_script).to_numpy()
        by_script = np.stack(list(self._in_script.values()))
        mask: np.ndarray = by_script[letters.argmax(axis=1)]
        mask[letters.max(axis=1) == 0] = True  # a script that none of the detectors knows
        return mask

    def _languages_of_scripts(self) -> dict[str, np.ndarray]:
        """Script -> bool C. A script none of whose languages is known lets all take part."""
        languages = {script: set(codes.split()) for script, codes in SCRIPTS.items()}
        elsewhere = set().union(*languages.values()) - set(ALSO_LATIN.split())
        languages["Latin"] = set(self.codes) - elsewhere
        masks = {script: np.array([code in codes for code in self.codes]) for script, codes in languages.items()}
        return {script: mask if mask.any() else np.ones_like(mask) for script, mask in masks.items()}
