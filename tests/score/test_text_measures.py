from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mmdata.samples import estimate_tokens
from mmdata.score import text_measures
from mmdata.score.text_measures import count_words, detect_languages, text_features

SENTENCES = {
    "en": [
        "A brown dog runs along the beach in the evening sun.",
        "red brick house with a garden",
        "two cats on a sofa",
    ],
    "zh": ["一只棕色的狗在夕阳下的海滩上奔跑。", "带花园的红砖房子"],
    "de": ["Ein brauner Hund läuft in der Abendsonne am Strand entlang.", "rotes Backsteinhaus mit einem Garten"],
    "ru": ["Коричневая собака бежит по пляжу на закате.", "красный кирпичный дом с садом"],  # noqa: RUF001
    "es": ["Un perro marrón corre por la playa al atardecer.", "casa de ladrillo rojo con un jardín"],
    "fr": ["Un chien brun court sur la plage au coucher du soleil."],
    "ja": ["夕日の中、茶色い犬が海岸を走っている。"],
    "ar": ["كلب بني يجري على الشاطئ عند الغروب"],
}


@pytest.mark.parametrize(("language", "sentence"), [(code, s) for code, all_ in SENTENCES.items() for s in all_])
def test_languages_of_real_sentences(language: str, sentence: str) -> None:
    [(detected, probability)] = detect_languages([sentence])
    assert detected == language
    assert probability is not None and 0 < probability <= 1


def test_a_long_sentence_is_surer_than_two_words() -> None:
    (_, long), (_, short) = detect_languages([SENTENCES["de"][0], "Das Tor"])
    assert long is not None and short is not None and long > 0.9 > short


@pytest.mark.parametrize("caption", ["", "  ", "12345", "!!! ☀️ 2024-05-01", "\x00\n"])
def test_nothing_in_letters_has_no_language(caption: str) -> None:
    assert detect_languages([caption]) == [(None, None)]


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


def test_real_english_is_mostly_found(real_corpus: Path) -> None:
    captions = pl.read_parquet(real_corpus / "captions.parquet").filter(pl.col("lang").str.starts_with("en"))["caption"]
    languages = text_features(captions)["lang"]
    assert (languages == "en").sum() / len(captions) > 0.7
