"""Captions name what a picture shows, in the language that they claim."""

from __future__ import annotations

from random import Random

from mmdata.demo.caption_templates import LANGUAGES, english_caption, foreign_caption


def test_english_captions_name_the_subject_and_its_kind() -> None:
    captions = {english_caption("apple", "food", "yellow", Random(seed)) for seed in range(50)}
    assert len(captions) == 6
    assert all("apple" in caption and "food" in caption for caption in captions)
    assert english_caption("white flag", "flag", "grey", Random(0)) == "picture of a white flag"
    assert "flag of Chad" in english_caption("Chad", "flag", "grey", Random(0))


def test_foreign_captions_have_the_subjects_name_in_that_language() -> None:
    captions = [foreign_caption({language: f"name-{language}"}, language) for language in LANGUAGES]
    assert all(f"name-{language}" in caption for language, caption in zip(LANGUAGES, captions, strict=True))
    assert len(set(captions)) == len(LANGUAGES)
