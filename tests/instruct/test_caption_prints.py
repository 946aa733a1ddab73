"""Hashes of captions: what counts as the same words."""

from __future__ import annotations

from mmdata.instruct.caption_prints import caption_prints, overlap


def test_case_punctuation_and_spacing_do_not_count() -> None:
    prints = caption_prints(["A cat!", "a  CAT", "a dog", None, "..."], 5)
    assert prints.identity[0] == prints.identity[1] != prints.identity[2]
    assert list(prints.identity[3:]) == [0, 0]


def test_cjk_captions_compare_by_character() -> None:
    prints = caption_prints(["一只红色的猫", "一只红色的猫。", "两条蓝色的狗"], 3)
    assert prints.identity[0] == prints.identity[1] != prints.identity[2]


def test_the_overlap_is_the_share_of_common_words() -> None:
    words = caption_prints(["red green blue", "red green black", "one two three"], 3).words
    assert overlap(words[0], words[1]) == 0.5
    assert overlap(words[0], words[2]) == 0
