"""Instruction templates: every task has texts in every language, and values stay as they are."""

from __future__ import annotations

import pytest

from mmdata.instruct.templates import ANSWER_IN, LANGUAGE_NAMES, TEMPLATES, YES_NO, fill


@pytest.mark.parametrize("task", TEMPLATES)
def test_a_task_has_several_templates_in_each_language_and_none_twice(task: str) -> None:
    assert TEMPLATES[task].keys() == {"en", "zh"}
    for texts in TEMPLATES[task].values():
        assert len(texts) >= 5
        assert len(set(texts)) == len(texts)
        assert all(text.strip() == text and text for text in texts)


def test_each_language_answers_yes_or_no_and_names_the_same_languages() -> None:
    assert YES_NO == {"en": ["Yes", "No"], "zh": ["是", "否"]}
    assert LANGUAGE_NAMES["en"].keys() == LANGUAGE_NAMES["zh"].keys()
    assert all("{language}" in text for text in ANSWER_IN.values())


def test_a_value_with_braces_or_a_placeholder_stays_as_it_is() -> None:
    filled = fill("A {caption}, not {question}", caption="{question} {x}", question="why?")
    assert filled == "A {question} {x}, not why?"
    assert fill("nothing to fill", caption="cat") == "nothing to fill"
