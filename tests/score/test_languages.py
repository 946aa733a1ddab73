"""The language of a caption: by script, by two detectors, and by how common a language is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.score import languages
from mmdata.score.language_tables import MERGED
from mmdata.score.languages import detect_languages

pytest.importorskip("eldc", reason="mmdata[score] is not installed")

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


@pytest.mark.parametrize(
    "caption", ["A tiger.", "Flag of Minnesota, USA", "A large paintbrush.", "flag: Hong Kong SAR China"]
)
def test_a_few_english_words_with_names_are_english(caption: str) -> None:
    assert detect_languages([caption])[0][0] == "en"


@pytest.mark.parametrize(
    ("caption", "language"),
    [
        ("猫", "zh"),
        ("ネコ", "ja"),
        ("夕日の中", "ja"),
        ("고양이", "ko"),
        ("γάτα", "el"),
        ("חתול", "he"),
        ("แมว", "th"),
        ("კატა", "ka"),
    ],
)
def test_one_word_of_a_script_of_its_own_has_its_language(caption: str, language: str) -> None:
    assert detect_languages([caption])[0][0] == language


def test_a_latin_word_in_a_russian_caption_does_not_make_it_english() -> None:
    assert detect_languages(["Смартфон iPhone на деревянном столе"])[0][0] == "ru"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=12), st.integers(0, 12))
def test_a_caption_alone_and_among_others_has_the_same_language(captions: list[str], cut: int) -> None:
    together = detect_languages(captions)
    assert together == [detected for caption in captions for detected in detect_languages([caption])]
    assert together == detect_languages(captions[:cut]) + detect_languages(captions[cut:])


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [sentence for sentences in SENTENCES.values() for sentence in sentences]
    expected = detect_languages(captions)
    monkeypatch.setattr(languages, "BATCH", 3)
    assert detect_languages(captions) == expected


def test_the_sum_of_log_likelihoods_is_the_plain_one() -> None:
    """The formula of the page on decisions, for one caption, in plain Python."""
    import math

    import eldc
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    from mmdata.score.language_tables import ODDS, OTHER_LANGUAGE_PERCENT, RELATIVES, WEB_PERCENT

    caption = "Un gat negre, A Coruña"
    eldc.init()
    detector = eldc.instance()
    detector.set_scores(eldc.MAX_SCORES)
    likelihoods = dict(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).rank(caption))
    scores = dict.fromkeys(eldc.LANGUAGES, 0.0) | detector.detect_details(caption).scores
    best, total = max(scores.values()), {}
    for code in ("en", "ca", "es", "gl", "pt", "br", "vi"):
        gap = scores[code] - best if code in scores else -0.05
        for near in RELATIVES.get(code, "").split() if code not in scores else ():
            gap = max(gap, scores[near] - best)
        prior = 0.2 * math.log(WEB_PERCENT.get(code, OTHER_LANGUAGE_PERCENT)) + math.log(ODDS.get(code, 1))
        total[code] = math.log(max(likelihoods[code], 1e-20)) + 12 * gap + prior
    model = languages._model()
    ours = (model.log_likelihoods([caption]) + model.eldc_terms([caption]) + model.log_prior)[0]
    np.testing.assert_allclose([ours[model.codes.index(code)] for code in total], list(total.values()), rtol=1e-6)


@pytest.fixture(scope="session")
def labelled(real_corpus: Path) -> pl.DataFrame:
    """The half of the labelled captions that no constant was chosen on: lang, detected, is_long.

    Clip art is left out of the English ones, for people titled it in their own languages. A caption that two
    languages share is left out.
    """
    columns = ("lang", "caption", "source")
    first = pl.read_parquet(real_corpus / "captions.parquet").select(columns)
    second = pl.read_parquet(real_corpus / "captions_multilingual.parquet")
    second = second.with_columns(source=pl.col("id").str.replace(r"-[0-9a-f]*$", "")).select(columns)
    frame = pl.concat([first, second]).with_columns(
        lang=pl.col("lang").str.replace(r"[_@-].*$", "").replace({"nb": "no", "nn": "no"})
    )
    frame = frame.filter(pl.col("caption").str.contains(r"\p{L}")).unique(["lang", "caption"], maintain_order=True)
    frame = frame.filter(pl.len().over("caption") == 1)
    halves = [hashlib.blake2b(text.encode(), digest_size=1).digest()[0] % 2 for text in frame["caption"]]
    frame = frame.filter(pl.Series(halves) == 1, pl.col("source") != "openclipart")
    detected = [code for code, _ in detect_languages(frame["caption"])]
    return frame.with_columns(
        detected=pl.Series(detected).replace({"nn": "no"}), is_long=pl.col("caption").str.count_matches(r"\S+") >= 3
    )


def test_english_captions_of_three_words_are_found(labelled: pl.DataFrame) -> None:
    """Half of the labelled captions; the page on decisions has the whole table."""
    long = labelled.filter("is_long")
    english = long.filter(pl.col("lang") == "en")
    assert (english["detected"] == "en").mean() > 0.965
    assert (long.filter(pl.col("detected") == "en")["lang"] == "en").mean() > 0.86


def test_languages_with_a_script_of_their_own_are_found(labelled: pl.DataFrame) -> None:
    hits = labelled.select("lang", hit=pl.col("lang") == pl.col("detected"))
    recall = dict(hits.group_by("lang").agg(pl.col("hit").mean()).iter_rows())
    for language in ("ko", "el", "he", "th", "ka"):
        assert recall[language] > 0.98, language
    for language in ("ru", "zh", "ja", "bn"):
        assert recall[language] > 0.84, language


def test_a_spoken_variety_counts_as_its_written_language() -> None:
    assert not set(MERGED) & set(languages._model().codes)
    assert set(MERGED.values()) <= set(languages._model().codes)
