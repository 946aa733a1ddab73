"""The published filter recipes: each is held against the published rule."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mmdata.config import Filter, Score
from mmdata.config.load import load_corpus, parse_corpus
from mmdata.config.presets import PRESETS, check_preset, other_language_score, preset_warnings, resolve
from mmdata.errors import UserError
from mmdata.releases.draft import release_inputs
from mmdata.workspace.layout import Workspace
from tests.support.selecting import filter_reasons, sample


def test_laion5b_asks_less_of_other_languages() -> None:
    recipe = Filter(preset="laion5b")
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
    assert filter_reasons(Filter(preset="laion5b", min_clip_score=0.28), low) == ["filter:clip_score"]
    assert all(resolve(Filter(preset=name)) for name in PRESETS)  # type: ignore[arg-type]


def test_a_score_rule_of_the_corpus_sets_aside_the_lower_bar_of_other_languages() -> None:
    assert other_language_score(Filter(preset="laion5b")) == 0.26
    assert other_language_score(Filter(preset="laion5b", min_words=2)) == 0.26
    assert other_language_score(Filter(preset="laion5b", min_clip_score=0.3)) is None
    assert other_language_score(Filter(preset="laion5b", top_fraction=0.5)) is None
    assert other_language_score(Filter(preset="datacomp-basic")) is None
    assert other_language_score(Filter()) is None


PUBLISHED = {
    # LAION-5B, arXiv:2210.08402, section 3, and its announcement on laion.ai: English pairs under 0.28 and all others
    # under 0.26 were removed, and texts of under 5 characters
    "laion2b-en": lambda row: row["lang"] == "en" and row["n_chars"] >= 5 and row["clip_score"] >= 0.28,
    "laion2b": lambda row: row["lang"] == "en" and row["n_chars"] >= 5 and row["clip_score"] >= 0.28,
    "laion2b-multi": lambda row: row["lang"] != "en" and row["n_chars"] >= 5 and row["clip_score"] >= 0.26,
    "laion5b": lambda row: row["n_chars"] >= 5 and row["clip_score"] >= (0.28 if row["lang"] == "en" else 0.26),
    # DataComp, arXiv:2304.14108; mlfoundations/datacomp, baselines/apply_filter.py, load_uids_with_basic_filter_helper:
    # (caption_num_words > 2) & (caption_num_chars > 5), (min_image_dim >= 200) & (aspect_ratio <= 3.0), English
    "datacomp-basic": lambda row: (
        row["lang"] == "en"
        and row["n_words"] > 2
        and row["n_chars"] > 5
        and row["original_width"] >= 200
        and row["aspect"] <= 3.0
    ),
    # the same file, load_uids_with_clip_score_helper with gcld3_en_filter, threshold 0.28 on clip_b32_similarity_score
    "datacomp-laion2b": lambda row: row["lang"] == "en" and row["clip_score"] >= 0.28,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_keeps_what_the_published_rule_keeps(name: str) -> None:
    rows = [
        {
            "lang": lang,
            "n_chars": chars,
            "n_words": words,
            "clip_score": score,
            "original_width": side,
            "aspect": aspect,
        }
        for lang in ("en", "de")
        for chars in (4, 5, 6)
        for words in (2, 3)
        for score in (0.25, 0.27, 0.29)
        for side in (199, 200)
        for aspect in (3.0, 3.01)
    ]
    samples = [sample(0, **row | {"original_height": row["original_width"]}) for row in rows]
    reasons = filter_reasons(Filter(preset=name), *samples)  # type: ignore[arg-type]
    assert [reason is None for reason in reasons] == [PUBLISHED[name](row) for row in rows]


def test_every_preset_has_a_published_rule_and_a_key() -> None:
    names = get_args(get_args(Filter.model_fields["preset"].annotation)[0])
    assert set(names) == set(PRESETS) == {*PUBLISHED, "clip-b32-top30", "clip-l14-top30"}


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.has_bound])
def test_a_threshold_of_another_scorer_is_refused_and_the_remedies_help(name: str, tmp_path: Path) -> None:
    def load(rules: str, score: str = "") -> None:
        path = tmp_path / "corpus.yaml"
        sources = "sources: [{name: web, kind: laion, files: a.parquet}]"
        path.write_text(f"workspace: w\n{sources}\n{score}\nselect: {{filter: {{{rules}}}}}\n")
        load_corpus(path)

    with pytest.raises(UserError, match=rf"preset: {name} keeps cosines of at least .*Remedy: score: ") as refused:
        load(f"preset: {name}")
    remedy = str(refused.value).partition("Remedy: ")[2]
    load(f"preset: {name}", remedy[: remedy.index("}") + 1])
    load(f"preset: {name}, preset_scorer: any")
    load(f"preset: {name}, min_clip_score: 0.2")
    load(f"preset: {name}, top_fraction: 0.5")


def test_a_share_by_another_scorer_and_another_detector_are_warnings() -> None:
    l14, b32 = Score(model="ViT-L-14", pretrained="openai"), Score(model="ViT-B-32", pretrained="openai")
    share = Filter(preset="clip-l14-top30")
    check_preset(share, b32)
    assert preset_warnings(share, l14) == []
    [warning] = preset_warnings(share, b32)
    assert "published with the scores of ViT-L-14/openai; here ViT-B-32/openai scores" in warning
    [detector] = preset_warnings(Filter(preset="datacomp-basic"), b32)
    assert "fastText" in detector
    assert preset_warnings(Filter(preset="datacomp-basic", languages=["en"]), b32) == []
    assert preset_warnings(Filter(), b32) == []


def test_a_preset_that_was_mended_makes_a_new_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inputs(preset: str) -> str:
        corpus = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "a"}]}
        rules = {"preset": preset, "preset_scorer": "any"}
        return release_inputs(parse_corpus(corpus | {"select": {"filter": rules}}), Workspace(str(tmp_path)), [])

    before = inputs("laion2b")
    monkeypatch.setitem(PRESETS, "laion2b", PRESETS["laion5b"])  # type: ignore[arg-type]
    assert inputs("laion2b") != before
