"""The published filter recipes."""

from __future__ import annotations

from mmdata.config import Filter
from mmdata.select.presets import PRESETS, other_language_score, resolve
from tests.support.selecting import filter_reasons, sample


def test_laion2b_asks_less_of_other_languages() -> None:
    recipe = Filter(preset="laion2b")
    given = [("en", 0.29), ("en", 0.27), ("de", 0.27), ("de", 0.25), (None, 0.27)]
    samples = [sample(i, lang=lang, clip_score=score) for i, (lang, score) in enumerate(given)]
    low = "filter:clip_score"
    assert filter_reasons(recipe, *samples) == [None, low, None, low, None]
    assert filter_reasons(recipe.model_copy(update={}), sample(0, n_chars=4, clip_score=0.9)) == ["filter:min_chars"]


def test_datacomp_basic_is_the_published_recipe() -> None:
    good = {"lang": "en", "n_words": 3, "n_chars": 6, "aspect": 3.0, "original_width": 200, "original_height": 600}
    bad = [{"lang": "fr"}, {"n_words": 2}, {"n_chars": 5}, {"aspect": 3.1}, {"original_width": 199}]
    given = filter_reasons(
        Filter(preset="datacomp-basic"), sample(0, **good), *(sample(0, **good | worse) for worse in bad)
    )
    wanted = ["language", "min_words", "min_chars", "max_aspect", "min_side"]
    assert given == [None, *(f"filter:{name}" for name in wanted)]


def test_keys_beside_a_preset_override_it() -> None:
    assert resolve(Filter(preset="clip-l14-top30")).top_fraction == 0.3
    scored = resolve(Filter(preset="clip-l14-top30", min_clip_score=0.2))
    assert (scored.min_clip_score, scored.top_fraction) == (0.2, None)
    assert resolve(Filter(preset="datacomp-basic", min_side=64)).min_side == 64
    low = sample(0, lang="de", clip_score=0.27)
    assert filter_reasons(Filter(preset="laion2b", min_clip_score=0.28), low) == ["filter:clip_score"]
    assert all(resolve(Filter(preset=name)) for name in PRESETS)  # type: ignore[arg-type]


def test_a_score_rule_of_the_corpus_sets_aside_the_lower_bar_of_other_languages() -> None:
    assert other_language_score(Filter(preset="laion2b")) == 0.26
    assert other_language_score(Filter(preset="laion2b", min_words=2)) == 0.26
    assert other_language_score(Filter(preset="laion2b", min_clip_score=0.3)) is None
    assert other_language_score(Filter(preset="laion2b", top_fraction=0.5)) is None
    assert other_language_score(Filter(preset="datacomp-basic")) is None
    assert other_language_score(Filter()) is None
