"""Published filter recipes, under their common names, and what each was published with: its scorer and its detector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdata.config.score import Score
from mmdata.config.scorers import resolved, scorer_name
from mmdata.config.select import Filter
from mmdata.errors import UserError

OPENAI_B32 = ("ViT-B-32/openai", "ViT-B-32-quickgelu/openai")
OPENAI_L14 = ("ViT-L-14/openai", "ViT-L-14-quickgelu/openai")
# LAION used M-CLIP, which open_clip does not have; this is its nearest relative there, trained on LAION-5B itself
MULTILINGUAL_B32 = ("xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",)

OURS = "mmdata tells languages by py3langid and eldc"


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe: values for the filter's keys, and where they were published.

    Args:
        scorers: names of the scorers whose scores it judges; empty: it judges none.
        detector: what told the languages of captions; None: it has no rule on languages.
        other_language_score: the CLIP threshold of captions that are not English, where it differs.
    """

    values: Mapping[str, Any]
    source: str
    scorers: tuple[str, ...] = ()
    detector: str | None = None
    other_language_score: float | None = None

    @property
    def has_bound(self) -> bool:
        """Whether it has a threshold that holds for its scorer only; a share can be taken of any scorer's scores."""
        return "min_clip_score" in self.values


_LAION = (
    "Schuhmann et al. 2022, LAION-5B, section 3: captions under 5 characters go; the language is told by CLD3; "
    "cosines under 0.28 go for English (OpenAI's ViT-B/32), under 0.26 for all others (multilingual CLIP)"
)
_DATACOMP = "Gadre et al. 2023, DataComp, section 3.4 and baselines/apply_filter.py: "

_LAION2B_EN = Preset({"min_clip_score": 0.28, "min_chars": 5, "languages": ["en"]}, _LAION, OPENAI_B32, detector="CLD3")

PRESETS: Mapping[str, Preset] = {
    "laion2b-en": _LAION2B_EN,
    "laion2b": _LAION2B_EN,
    "laion2b-multi": Preset(
        {"min_clip_score": 0.26, "min_chars": 5, "exclude_languages": ["en"]}, _LAION, MULTILINGUAL_B32, detector="CLD3"
    ),
    "laion5b": Preset(
        {"min_clip_score": 0.28, "min_chars": 5},
        _LAION,
        (*OPENAI_B32, *MULTILINGUAL_B32),
        detector="CLD3",
        other_language_score=0.26,
    ),
    "datacomp-basic": Preset(
        {"languages": ["en"], "min_words": 3, "min_chars": 6, "max_aspect": 3.0, "min_side": 200},
        _DATACOMP + "basic filtering: English by fastText, more than 2 words and 5 characters, aspect ratio at most 3, "
        "shorter side at least 200 pixels",
        detector="fastText's lid.176",
    ),
    "datacomp-laion2b": Preset(
        {"languages": ["en"], "min_clip_score": 0.28},
        _DATACOMP + "LAION-2B filtering: English by CLD3, cosine at least 0.28 by OpenAI's ViT-B/32",
        OPENAI_B32,
        detector="CLD3",
    ),
    "clip-b32-top30": Preset(
        {"top_fraction": 0.3}, _DATACOMP + "CLIP score filtering, the best 30% by OpenAI's ViT-B/32", OPENAI_B32
    ),
    "clip-l14-top30": Preset(
        {"top_fraction": 0.3}, _DATACOMP + "CLIP score filtering, the best 30% by OpenAI's ViT-L/14", OPENAI_L14
    ),
}
"""`laion2b` is the name of 0.1 for `laion2b-en`; then it had no rule on languages, as `laion5b` has none."""

_SCORE_RULES = frozenset({"min_clip_score", "top_fraction"})
_LANGUAGE_RULES = frozenset({"languages", "exclude_languages"})


def resolve(rules: Filter) -> Filter:
    """The filter, with values of its preset for the keys that the corpus does not set.

    A score rule of the corpus (`min_clip_score` or `top_fraction`) takes the place of the preset's.
    """
    if rules.preset is None:
        return rules
    set_rules = {key: value for key, value in rules.model_dump().items() if key in rules.model_fields_set}
    recipe = PRESETS[rules.preset].values
    if any(set_rules.get(key) is not None for key in _SCORE_RULES):
        recipe = {key: value for key, value in recipe.items() if key not in _SCORE_RULES}
    return Filter.model_validate({**recipe, **set_rules})


def other_language_score(rules: Filter) -> float | None:
    """The preset's CLIP threshold for captions that are not English; None: the same as for English."""
    if rules.preset is None or _sets_score_rule(rules):
        return None
    return PRESETS[rules.preset].other_language_score


def check_preset(rules: Filter, score: Score) -> None:
    """Raise UserError if the preset's threshold is one of another scorer's cosines, which do not compare.

    `preset_scorer: any` says that the user knows.
    """
    if rules.preset is None or not PRESETS[rules.preset].has_bound or _sets_score_rule(rules):
        return
    if rules.preset_scorer == "any" or _is_published_scorer(PRESETS[rules.preset], score):
        return
    preset = PRESETS[rules.preset]
    model, _, tag = preset.scorers[0].partition("/")
    raise UserError(
        f"select.filter.preset: {rules.preset} keeps cosines of at least {preset.values['min_clip_score']:g} by "
        f"{preset.scorers[0]}; the scorer here is {scorer_name(score)}, whose cosines lie elsewhere. Remedy: "
        f"score: {{model: {model}, pretrained: {tag}}}, or a min_clip_score or top_fraction of your own beside the "
        "preset, or preset_scorer: any if the threshold is meant for this scorer."
    )


def preset_warnings(rules: Filter, score: Score) -> list[str]:
    """How the filter differs from its preset as it was published: by another scorer, by another detector."""
    if rules.preset is None:
        return []
    preset = PRESETS[rules.preset]
    warnings = []
    if preset.scorers and not _sets_score_rule(rules) and not _is_published_scorer(preset, score):
        model, _, tag = preset.scorers[0].partition("/")
        warnings.append(
            f"select.filter.preset: {rules.preset} was published with the scores of {preset.scorers[0]}; here "
            f"{scorer_name(score)} scores. Remedy: score: {{model: {model}, pretrained: {tag}}}"
        )
    if preset.detector and not _LANGUAGE_RULES & rules.model_fields_set:
        warnings.append(
            f"select.filter.preset: {rules.preset} was published with languages told by {preset.detector}; {OURS}, "
            "which finds more of the short English captions (docs/decisions.md). Remedy: none is needed; with "
            "`languages` beside the preset, the rule is yours."
        )
    return warnings


def _sets_score_rule(rules: Filter) -> bool:
    return any(getattr(rules, key) is not None for key in _SCORE_RULES & rules.model_fields_set)


def _is_published_scorer(preset: Preset, score: Score) -> bool:
    score = resolved(score)
    name = f"{re.sub('/', '-', score.model)}/{(score.pretrained or '').lower().replace('-', '_')}"
    return name in preset.scorers
