"""Captions are matched against concepts by MetaCLIP's published rule."""

from __future__ import annotations

import random
import string
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.config.concept_list import Concepts
from mmdata.select import concept_matcher
from mmdata.select.concept_matcher import ConceptMatcher, unmatchable

WORDS = [
    "cat",
    "Cat",
    "hot dog",
    "New York",
    "c++",
    "c",
    "C#",
    "u.s.",
    "u",
    "s",
    "AT&T",
    "AT",
    "T",
    "rock'n'roll",
    "😀",
]
WORDS += [
    "猫",
    "白猫",
    "ねこ",
    "猫 dog",
    "ไทย",
    "고양이",
    "naïve",
    "Straße",
    "ß",
    "(r)",
    "St.",
    "3.5",
    "3",
    "5",
    "a`b",
    "—",
]
WORDS += ["black cat", "cat .", "Elden Ring」", "e\u0301", "e", "x\ty", "y"]
JOINTS = [
    " ",
    " ",
    "  ",
    ", ",
    ",",
    ".",
    ". ",
    "! ",
    "-",
    "/",
    "\t",
    "\n",
    "\r\n",
    "\xa0",
    "\u3000",
    "`",
    "; ",
    "",
    "。",
]


def published_rule(caption: str, concepts: list[str]) -> list[str]:
    """MetaCLIP's rule in a few lines: pad, set seven marks apart, then look for each padded concept."""
    text = f" {caption.strip()} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for line_end in "\t\n\r":
        text = text.replace(line_end, " ")
    return [concept for concept in concepts if padded(concept) in text]


def padded(concept: str) -> str:
    return ("" if unspaced(concept[0]) else " ") + concept + ("" if unspaced(concept[-1]) else " ")


def unspaced(character: str) -> bool:
    code = ord(character)
    scripts = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2EBEF), (0xF900, 0xFAFF)]
    scripts += [(0x2E80, 0x2FDF), (0x2FF0, 0x2FFF), (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF)]
    marks = "，。、；：？！“”‘’（）【】《》〈〉「」『』～—"  # noqa: RUF001
    return character in string.punctuation + marks or any(first <= code <= last for first, last in scripts)


def matched(concepts: list[str], *captions: str | None, ignore_case: bool = False) -> list[list[str] | None]:
    matcher = ConceptMatcher(Concepts(concepts), ignore_case)
    found = matcher.match(pl.Series("caption", captions, dtype=pl.String)).to_list()
    return [None if places is None else [concepts[place] for place in places] for places in found]


def odd_captions(count: int) -> list[str]:
    draw = random.Random(0)
    return [
        "".join(draw.choice(JOINTS) + draw.choice(WORDS) for _ in range(draw.randint(1, 7))) + draw.choice(JOINTS)
        for _ in range(count)
    ]


def test_five_hundred_odd_captions_are_matched_by_the_published_rule() -> None:
    captions = odd_captions(500)
    wanted = [published_rule(caption, WORDS) if caption else None for caption in captions]
    assert matched(WORDS, *captions) == wanted
    named = {concept for concepts in wanted for concept in concepts or []}
    assert named >= {"c++", "c", "AT&T", "New York", "猫", "白猫", "😀", "ไทย", "Straße", "Cat", "cat ."}
    assert named.isdisjoint(unmatchable(Concepts(WORDS)))


def test_signs_and_case_are_part_of_a_concept() -> None:
    concepts = ["c", "c++", "AT&T", "AT", "New York", "new york", "tiger"]
    found = matched(concepts, "c++ for cats", "plain c, here", "AT&T in New York!", "A Tiger", "new\tyork")
    assert found == [["c++"], ["c"], ["AT&T", "New York"], [], ["new york"]]
    assert matched(concepts, "A Tiger in NEW YORK", ignore_case=True) == [["New York", "tiger"]]


def test_a_concept_with_a_mark_in_a_word_matches_nothing_and_is_known() -> None:
    concepts = ["u.s.", "St.", "3.5", "x\ty", "c++", "cat .", ". . .", "!"]
    assert unmatchable(Concepts(concepts)) == ["u.s.", "St.", "3.5", "x\ty", ". . ."]
    found = matched(concepts, "the u.s., St. John, 3.5 and x\ty", "c++ and a cat. Really...")
    assert found == [[], ["c++", "cat ."]]


def test_scripts_without_spaces_match_within_a_text_and_others_between_spaces() -> None:
    found = matched(
        ["猫", "白猫", "狗", "ไทย", "고양이"], "一只白猫在草地上", "小狗", "ภาษาไทยนะ", "고양이가", "고양이 한 마리"
    )
    assert found == [["猫", "白猫"], ["狗"], ["ไทย"], [], ["고양이"]]


def test_neighbouring_and_nested_concepts_are_all_found_once() -> None:
    assert matched(["cat", "dog", "cat dog", "dog cat"], "cat dog cat") == [["cat", "dog", "cat dog", "dog cat"]]


def test_a_missing_caption_has_no_concepts_and_a_caption_that_names_none_an_empty_list() -> None:
    assert matched(["cat"], None, "", "a dog", " ") == [None, None, [], []]
    assert matched(["..."], "cat ...") == [[]]
    assert matched(["Cat", "cat"], "CAT", ignore_case=True) == [["Cat"]]


@given(st.permutations(range(40)), st.lists(st.integers(0, 40), max_size=4).map(sorted), st.integers(1, 60))
@settings(max_examples=25)
def test_any_order_and_any_cut_of_captions_gives_each_the_same_concepts(
    order: list[int], cuts: list[int], chunk: int
) -> None:
    captions = odd_captions(40)
    matcher = ConceptMatcher(Concepts(WORDS))
    whole = matcher.match(pl.Series(captions)).to_list()
    shuffled = [captions[at] for at in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(concept_matcher, "_CHUNK_CHARACTERS", chunk)
        bounds = [0, *cuts, 40]
        pieces = [shuffled[start:stop] for start, stop in pairwise(bounds)]
        found = [one for piece in pieces for one in matcher.match(pl.Series(piece, dtype=pl.String)).to_list()]
    assert found == [whole[at] for at in order]


def test_each_caption_is_matched_with_the_list_of_its_language() -> None:
    concepts = Concepts(["chat", "cat", "猫"], {"en": range(2), "zh": range(2, 3)})
    captions = pl.Series(["chat cat 猫", "cat 猫", "chat", "cat", None])
    languages = pl.Series(["en", "zh", "fr", None, "en"])
    assert ConceptMatcher(concepts).match(captions, languages).to_list() == [[0, 1], [2], None, None, None]
    others = Concepts(["cat", "chat"], {"en": range(1), "other": range(1, 2)})
    assert ConceptMatcher(others).match(captions, languages).to_list() == [[0], [], [1], [], None]
    with pytest.raises(ValueError, match="needs the languages"):
        ConceptMatcher(others).match(captions)
