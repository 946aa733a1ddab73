"""Quality rules. Each is an expression for the rows that fail it; the first rule that a row fails is its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from mmdata.config import Filter
from mmdata.config.presets import other_language_score, resolve
from mmdata.config.select_scores import ScoreKind
from mmdata.documents import PICTURED
from mmdata.samples import source_score
from mmdata.select.scores.named_scores import score_value

REASON = "filter:"

ORDER = (
    "nan_score",
    "clip_score",
    "language",
    "min_words",
    "max_words",
    "min_chars",
    "min_side",
    "max_aspect",
    "min_sharpness",
    "punsafe",
    "pwatermark",
    "max_faces",
    "max_black",
    "max_frozen",
    "min_seconds",
    "max_seconds",
    "min_loudness_db",
    "max_silence",
    "min_speech",
    "max_speech",
    "min_overlap",
    "min_audio_score",
    "min_agreement",
    "max_agreement",
)
"""The rules, in the order in which they are asked; those on further scores follow, by the order of the settings."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its name, which follows `filter:` in a reason, and an expression for rows that fail it (never null)."""

    name: str
    fails: pl.Expr


def rules(settings: Filter, scores: Mapping[str, ScoreKind] | None = None) -> list[Rule]:
    """The rules that a filter sets, in the order of `ORDER`; top fractions are none, for they look at all rows.

    They read rows, media and features columns: kind, caption, extra; original_width, original_height, duration_s,
    audio_s; clip_score, lang, lang_prob, n_words, n_chars, aspect, sharpness, faces, black_ratio, frozen_ratio,
    audio_rms_db, silence_ratio, speech_ratio, speech_overlap, audio_score, caption_agreement; and `score_<name>` of
    further scores.

    A measure that a sample ought to have and lacks fails its rule; the source's own `punsafe` and `pwatermark` pass
    where the source has none. Rules on pictures leave alone what has none (kinds `text` and `audio`), rules on sound
    what has no sound, and rules on length what has neither sound nor moving pictures; `min_overlap` and
    `min_audio_score` leave alone sound without a caption, too, and rules on agreement what has no two captions.

    Args:
        scores: `select.scores`.
    """
    order = {name: place for place, name in enumerate(ORDER)}
    preset = resolve(settings)
    named = [*_rules(preset), *_bounds(preset, other_language_score(settings), scores or {})]
    return sorted(named, key=lambda rule: order.get(rule.name, len(order)))


def _bounds(settings: Filter, other_score: float | None, scores: Mapping[str, ScoreKind]) -> Iterator[Rule]:
    """The bounds on named scores; the cosine's is `min_clip_score`, too."""
    least, most = _exact(settings.min_scores), _exact(settings.max_scores)
    if settings.min_clip_score is not None:
        least["clip_score"] = pl.lit(settings.min_clip_score, pl.Float32)
        if other_score is not None:
            of_others = pl.lit(other_score, pl.Float32)
            least["clip_score"] = pl.when(pl.col("lang") == "en").then(least["clip_score"]).otherwise(of_others)
    tops = [name for entry in settings.top for name in entry.scores]
    if settings.top_fraction is not None or "clip_score" in (*least, *most, *tops):
        yield Rule("nan_score", score_value("clip_score", scores).is_nan().fill_null(value=False))
    for name in dict.fromkeys((*least, *most)):
        value = score_value(name, scores)
        # null: no rule on the score applies to the row; NaN: the row ought to have it
        fails = value.is_nan()
        if name in least:
            fails |= value < least[name]
        if name in most:
            fails |= value > most[name]
        yield Rule(name, fails.fill_null(value=False))


def _exact(bounds: Mapping[str, float]) -> dict[str, pl.Expr]:
    return {name: pl.lit(bound, pl.Float32) for name, bound in bounds.items()}


def _rules(settings: Filter) -> Iterator[Rule]:
    pictured = pl.col("kind").is_in(PICTURED)
    if settings.languages is not None or settings.exclude_languages is not None or settings.min_lang_prob > 0:
        yield Rule("language", ~_is_known_language(settings))
    words, characters = pl.col("n_words").fill_null(0), pl.col("n_chars").fill_null(0)
    side = pl.min_horizontal("original_width", "original_height")
    clip, heard = pl.col("kind") == "video", pl.col("audio_s").is_not_null()
    said = heard & (pl.col("caption").str.len_bytes() > 0).fill_null(value=False)
    compared = pl.col("caption_agreement").is_not_null()
    seconds, timed = pl.coalesce("duration_s", "audio_s"), clip | heard
    bounds: list[tuple[str, float | None, Callable[[pl.Expr], pl.Expr]]] = [
        ("min_words", settings.min_words, lambda bound: words < bound),
        ("max_words", settings.max_words, lambda bound: words > bound),
        ("min_chars", settings.min_chars, lambda bound: characters < bound),
        ("min_side", settings.min_side, lambda bound: pictured & ~_measured(side, bound)),
        ("max_aspect", settings.max_aspect, lambda bound: pictured & ~_measured(-pl.col("aspect"), -bound)),
        ("min_sharpness", settings.min_sharpness, lambda bound: pictured & ~_measured(pl.col("sharpness"), bound)),
        ("max_faces", settings.max_faces, lambda bound: pictured & ~_measured(-pl.col("faces"), -bound)),
        ("max_black", settings.max_black, lambda bound: clip & ~_measured(-pl.col("black_ratio"), -bound)),
        ("max_frozen", settings.max_frozen, lambda bound: clip & ~_measured(-pl.col("frozen_ratio"), -bound)),
        ("min_seconds", settings.min_seconds, lambda bound: timed & ~_measured(seconds, bound)),
        ("max_seconds", settings.max_seconds, lambda bound: timed & ~_measured(-seconds, -bound)),
        ("min_loudness_db", settings.min_loudness_db, lambda bound: heard & ~_measured(pl.col("audio_rms_db"), bound)),
        ("max_silence", settings.max_silence, lambda bound: heard & ~_measured(-pl.col("silence_ratio"), -bound)),
        ("min_speech", settings.min_speech, lambda bound: heard & ~_measured(pl.col("speech_ratio"), bound)),
        ("max_speech", settings.max_speech, lambda bound: heard & ~_measured(-pl.col("speech_ratio"), -bound)),
        ("min_overlap", settings.min_overlap, lambda bound: said & ~_measured(pl.col("speech_overlap"), bound)),
        ("min_audio_score", settings.min_audio_score, lambda bound: said & ~_measured(pl.col("audio_score"), bound)),
        ("min_agreement", settings.min_agreement, lambda least: compared & (pl.col("caption_agreement") < least)),
        ("max_agreement", settings.max_agreement, lambda most: compared & (pl.col("caption_agreement") > most)),
        ("punsafe", settings.max_punsafe, lambda bound: source_score("punsafe") > bound),
        ("pwatermark", settings.max_pwatermark, lambda bound: source_score("pwatermark") > bound),
    ]
    for name, bound, fails in bounds:
        if bound is not None:
            exact = pl.lit(bound, pl.Float64 if name.startswith("p") else pl.Float32)
            yield Rule(name, fails(exact).fill_null(False))


def _is_known_language(settings: Filter) -> pl.Expr:
    accepted = pl.col("lang").is_not_null()
    if settings.min_lang_prob > 0:
        accepted &= (pl.col("lang_prob") >= pl.lit(settings.min_lang_prob, pl.Float32)).fill_null(False)
    if settings.languages is not None:
        accepted &= pl.col("lang").is_in(settings.languages).fill_null(False)
    if settings.exclude_languages is not None:
        accepted &= ~pl.col("lang").is_in(settings.exclude_languages).fill_null(False)
    return accepted


def _measured(value: pl.Expr, least: pl.Expr) -> pl.Expr:
    """Whether a measure exists, is a number and is at least the bound. In Polars, NaN is larger than any number."""
    return (value.cast(pl.Float32).fill_nan(None) >= least).fill_null(False)


def filter_reason(settings: Filter, scores: Mapping[str, ScoreKind] | None = None) -> pl.Expr:
    """The reason (`filter:<rule>`) of the first rule that a row fails; null where it passes them all. Categorical."""
    # Categories from the start: a coalesce over numbers takes a quarter of the time of one over strings.
    named = [(rule.fails, pl.lit(f"{REASON}{rule.name}", pl.Categorical)) for rule in rules(settings, scores)]
    return pl.coalesce([pl.when(fails).then(name) for fails, name in named] or pl.lit(None, pl.Categorical))


def columns_read(settings: Filter, scores: Mapping[str, ScoreKind] | None = None) -> set[str]:
    """The columns that the filter's rules read."""
    return {name for rule in rules(settings, scores) for name in rule.fails.meta.root_names()}
