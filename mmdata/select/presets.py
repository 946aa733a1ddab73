"""Published filter recipes, under their common names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmdata.config import Filter

LAION_ENGLISH_SCORE = 0.28
LAION_OTHER_SCORE = 0.26


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe: values for the filter's keys, and where they were published.

    Args:
        other_language_score: the CLIP threshold of captions that are not English, where it differs.
    """

    values: dict[str, Any]
    source: str
    other_language_score: float | None = None


PRESETS: dict[str, Preset] = {
    "laion2b": Preset(
        {"min_clip_score": LAION_ENGLISH_SCORE, "min_chars": 5},
        "LAION-5B, Schuhmann et al. 2022, section 3.2: captions of 5 characters or more; cosine at least 0.28 by "
        "ViT-B/32 for English and 0.26 by multilingual CLIP for the rest",
        other_language_score=LAION_OTHER_SCORE,
    ),
    "datacomp-basic": Preset(
        {"languages": ["en"], "min_words": 3, "min_chars": 6, "max_aspect": 3.0, "min_side": 200},
        "DataComp, Gadre et al. 2023, section 3.4, basic filtering: English, more than 2 words and 5 characters, "
        "aspect ratio at most 3, shorter side at least 200 pixels",
    ),
    "clip-l14-top30": Preset(
        {"top_fraction": 0.3},
        "DataComp, Gadre et al. 2023, CLIP score filtering: the best 30% by ViT-L/14 (set score.model to match)",
    ),
}

_SCORE_RULES = frozenset({"min_clip_score", "top_fraction"})


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
    if rules.preset is None or _SCORE_RULES & {
        key for key in rules.model_fields_set if getattr(rules, key) is not None
    }:
        return None
    return PRESETS[rules.preset].other_language_score
