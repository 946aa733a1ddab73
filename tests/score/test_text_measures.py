from __future__ import annotations

import polars as pl
import pytest

from mmdata.samples import count_words, estimate_tokens
from mmdata.score import text_measures
from mmdata.score.text_measures import text_features


@pytest.mark.parametrize("caption", ["a\x00b\ncat", "ä" * 100_000, "\ud7ff\uffff word", "🐈 cat 猫"])
def test_odd_captions_are_measured(caption: str) -> None:
    frame = text_features(pl.Series([caption]))
    assert frame["n_chars"][0] == len(caption)
    assert frame["n_words"][0] >= 1


def test_words_are_counted_in_any_script() -> None:
    frame = pl.DataFrame({"c": ["two cats", "一只猫", "猫 and dog", "", " a  b\n", "ネコ2匹", "고양이", None]})
    assert frame.select(count_words(pl.col("c"))).to_series().to_list() == [2, 3, 3, 0, 2, 4, 3, None]


def test_words_and_token_estimate_agree_on_what_a_word_is() -> None:
    frame = pl.DataFrame({"c": ["one two three", "一只猫", "猫 and dog", "x"]})
    words, tokens = frame.select(w=count_words(pl.col("c")), t=estimate_tokens(pl.col("c")))
    assert all(w <= t <= w * 4 / 3 + 1 for w, t in zip(words, tokens, strict=True))


def test_features_stay_in_order_and_identical_captions_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def detect(captions: pl.Series) -> list:
        measured.extend(captions)
        return [(f"l{len(caption)}", 1.0) for caption in captions]

    monkeypatch.setattr(text_measures, "detect_languages", detect)
    frame = text_features(pl.Series(["bb", "a", None, "bb", "ccc", "a"]))
    assert frame["lang"].to_list() == ["l2", "l1", None, "l2", "l3", "l1"]
    assert frame["n_chars"].to_list() == [2, 1, None, 2, 3, 1]
    assert sorted(measured) == ["a", "bb", "ccc"]


def test_no_captions_give_no_rows() -> None:
    for captions in (pl.Series([], dtype=pl.String), pl.Series([None, None])):
        frame = text_features(captions)
        assert frame.shape == (len(captions), 4)
        assert frame.schema["lang_prob"] == pl.Float32
