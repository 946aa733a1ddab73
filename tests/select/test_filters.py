"""Rules and the top fraction."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from mmdata.config import Filter
from mmdata.select.filters import ORDER, columns_read, filter_reason, rules
from tests.support.selecting import filter_reasons, sample


@pytest.mark.parametrize(
    ("key", "bound", "good", "bad", "reason"),
    [
        ("min_clip_score", 0.28, {"clip_score": 0.28}, {"clip_score": 0.2799}, "clip_score"),
        ("languages", ["en", "zh"], {"lang": "zh"}, {"lang": "de"}, "language"),
        ("languages", ["en"], {"lang": "en"}, {"lang": None}, "language"),
        ("min_lang_prob", 0.5, {"lang_prob": 0.5}, {"lang_prob": 0.4}, "language"),
        ("min_words", 3, {"n_words": 3}, {"n_words": 2}, "min_words"),
        ("min_words", 1, {"n_words": 1}, {"n_words": None}, "min_words"),
        ("max_words", 3, {"n_words": 3}, {"n_words": 4}, "max_words"),
        ("min_chars", 6, {"n_chars": 6}, {"n_chars": 5}, "min_chars"),
        ("min_side", 200, {"original_height": 200}, {"original_height": 199}, "min_side"),
        ("min_side", 200, {}, {"original_width": None, "original_height": None}, "min_side"),
        ("max_aspect", 3.0, {"aspect": 3.0}, {"aspect": 3.01}, "max_aspect"),
        ("max_aspect", 3.0, {"aspect": 1.0}, {"aspect": None}, "max_aspect"),
        ("min_sharpness", 10.0, {"sharpness": 10.0}, {"sharpness": 9.0}, "min_sharpness"),
        ("min_sharpness", 10.0, {"sharpness": 11.0}, {"sharpness": math.nan}, "min_sharpness"),
        ("max_punsafe", 0.5, {"extra": '{"punsafe": 0.5}'}, {"extra": '{"punsafe": 0.51}'}, "punsafe"),
        ("max_punsafe", 0.5, {"extra": None}, {"extra": '{"punsafe": "0.9"}'}, "punsafe"),
        # the columns of COYO-700M and LAION-400M
        (
            "max_punsafe",
            0.5,
            {"extra": '{"nsfw_score_opennsfw2": 0.5}'},
            {"extra": '{"nsfw_score_opennsfw2": 0.6}'},
            "punsafe",
        ),
        ("max_punsafe", 0.5, {"extra": '{"NSFW": "UNSURE"}'}, {"extra": '{"NSFW": "NSFW"}'}, "punsafe"),
        ("max_punsafe", 0.4, {"extra": '{"NSFW": "UNLIKELY"}'}, {"extra": '{"NSFW": "UNSURE"}'}, "punsafe"),
        (
            "max_pwatermark",
            0.8,
            {"extra": '{"watermark_score": 0.8}'},
            {"extra": '{"watermark_score": "0.9"}'},
            "pwatermark",
        ),
        ("max_pwatermark", 0.8, {"extra": '{"punsafe": 1}'}, {"extra": '{"pwatermark": 0.9}'}, "pwatermark"),
    ],
)
def test_a_rule_keeps_what_meets_it_and_names_itself_for_what_does_not(
    key: str, bound: Any, good: dict, bad: dict, reason: str
) -> None:
    asked = Filter.model_validate({key: bound})
    assert filter_reasons(asked, sample(0, **good), sample(1, **{"clip_score": 0.5} | bad)) == [
        None,
        f"filter:{reason}",
    ]


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_dropped_with_its_own_reason(score: float | None) -> None:
    for asked in (Filter(min_clip_score=-1), Filter(top_fraction=1)):
        assert filter_reasons(asked, sample(0, clip_score=score)) == ["filter:nan_score"]
    assert filter_reasons(Filter(), sample(0, clip_score=score)) == [None]


def test_text_alone_is_not_asked_for_a_picture() -> None:
    asked = Filter(min_clip_score=0.3, min_side=100, max_aspect=2, min_sharpness=1)
    assert filter_reasons(asked, {"kind": "text", "n_words": 5, "n_chars": 20}) == [None]


def test_the_first_failing_rule_is_the_reason() -> None:
    asked = Filter(min_clip_score=0.3, languages=["en"], min_words=3, max_aspect=2)
    worst = sample(0, clip_score=0.1, lang="de", n_words=1, aspect=9)
    better = sample(1, clip_score=0.5, lang="de", n_words=1, aspect=9)
    assert filter_reasons(asked, worst, better) == ["filter:clip_score", "filter:language"]
    assert [rule.name for rule in rules(asked)] == [name for name in ORDER if name in {r.name for r in rules(asked)}]


def test_the_source_columns_are_parsed_only_if_a_rule_asks() -> None:
    assert "extra" not in columns_read(Filter(preset="datacomp-basic", min_clip_score=0.1))
    assert "extra" in columns_read(Filter(max_punsafe=0.1))


CLIP = {"kind": "video", "caption": "cut the bread", "duration_s": 8.0, "audio_s": 8.0}
PICTURE = {"kind": "image", "caption": "a bread"}
TEXT = {"kind": "text", "caption": "bread is baked"}


@pytest.mark.parametrize(
    ("key", "bound", "good", "bad", "alone"),
    [
        ("max_faces", 1, {"faces": 1}, [{"faces": 2}, {"faces": None}], [TEXT]),
        ("max_black", 0.5, {"black_ratio": 0.5}, [{"black_ratio": 0.6}, {"black_ratio": None}], [TEXT, PICTURE]),
        ("max_frozen", 0.5, {"frozen_ratio": 0.1}, [{"frozen_ratio": 1.0}, {"frozen_ratio": None}], [TEXT, PICTURE]),
        ("min_seconds", 8.0, {}, [{"duration_s": 7.9}, {"duration_s": None, "audio_s": None}], [TEXT, PICTURE]),
        ("max_seconds", 8.0, {}, [{"duration_s": 8.1}], [TEXT, PICTURE]),
        ("min_loudness_db", -30.0, {"audio_rms_db": -30}, [{"audio_rms_db": -31}, {}], [TEXT, PICTURE]),
        ("max_silence", 0.5, {"silence_ratio": 0.5}, [{"silence_ratio": 0.6}, {}], [TEXT, PICTURE]),
        ("min_speech", 0.3, {"speech_ratio": 0.3}, [{"speech_ratio": 0.2}, {}], [TEXT, PICTURE]),
        ("max_speech", 0.3, {"speech_ratio": 0.3}, [{"speech_ratio": 0.4}, {}], [TEXT, PICTURE]),
        ("min_overlap", 0.3, {"speech_overlap": 0.3}, [{"speech_overlap": 0.2}, {}], [TEXT, PICTURE]),
        ("min_audio_score", 0.1, {"audio_score": 0.1}, [{"audio_score": 0.05}, {}], [TEXT, PICTURE]),
    ],
)
def test_rules_on_clips_and_sound_ask_what_has_them(
    key: str, bound: float, good: dict[str, Any], bad: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> None:
    asked = Filter.model_validate({key: bound})
    found = filter_reasons(asked, {**CLIP, **good}, *alone, *({**CLIP, **one} for one in bad))
    assert found == [None] * (1 + len(alone)) + [f"filter:{key}"] * len(bad)


def test_a_silent_clip_is_no_business_of_the_rules_on_sound() -> None:
    silent = {**CLIP, "audio_s": None}
    wordless = {"kind": "audio", "caption": None, "audio_s": 3.0, "speech_ratio": 0.9}
    for key, bound in (("min_speech", 0.5), ("max_silence", 0.1), ("min_overlap", 0.5), ("min_audio_score", 0.5)):
        asked = Filter.model_validate({key: bound})
        assert filter_reasons(asked, silent) == [None]
        if key in ("min_overlap", "min_audio_score"):
            assert filter_reasons(asked, wordless) == [None]


def test_agreement_is_judged_where_there_are_two_captions() -> None:
    frame = pl.DataFrame({"caption_agreement": [0.1, 0.5, 0.9, None]}, schema={"caption_agreement": pl.Float32})
    reasons = frame.select(filter_reason(Filter(min_agreement=0.5, max_agreement=0.5)).cast(pl.String)).to_series()
    assert reasons.to_list() == ["filter:min_agreement", None, "filter:max_agreement", None]
