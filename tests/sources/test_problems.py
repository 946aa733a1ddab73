"""Problems of rows, times, and captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.sources.problems import clean_caption, is_missing, is_too_nested, parse_time, place_uid, problem_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("1:02", 62), ("1:00:00,250", 3600.25), (" 3 ", 3), ("-4", -4), ("1:-2", None), ("", None),
     ("a:b", None), ("1e308:00:00", None), ("inf", None), ("nan", None), ("1:2:3:4", None), ("1e3", 1000),
     ("-0:00:02", None), ("-1:02", None), ("1_0", None), ("1.2.3", None), ("1:2.5:3", None), ("0x10", None)],
)  # fmt: skip
def test_times_in_many_forms(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("url", "caption", "sha256", "kind", "problem"),
    [
        ("http://example.com/a", "words", None, "image", None),
        (None, "words", None, "image", "no_url"),
        ("ftp://example.com/a", "words", None, "image", "not_http"),
        ("http:///a", "words", None, "image", "bad_url"),
        ("http://example.com/" + "x" * 8_192, "words", None, "image", "url_too_long"),
        ("http://example.com/a", "", None, "image", "no_caption"),
        ("http://example.com/a", None, None, "audio", None),
        ("http://example.com/a", "x" * 10_001, None, "image", "caption_too_long"),
        (None, "x" * 10_001, None, "text", None),
        ("http://example.com/a", "words", "abc", "image", "bad_sha256"),
        ("http://example.com/a", "words &#" + "9" * 5_000 + ";", None, "image", "bad_caption"),
        (None, "&amp;#" + "9" * 5_000, None, "text", "bad_caption"),
        ("http://example.com/a", "call #123456789", None, "image", None),
    ],
)
def test_the_first_problem_of_a_row(
    url: str | None, caption: str | None, sha256: str | None, kind: str, problem: str | None
) -> None:
    assert problem_of(url, caption, sha256, kind) == problem
    assert problem is None or f"`{problem}`" in PAGE, "docs/sources.md must explain each problem"


def test_a_caption_becomes_one_line_without_control_characters() -> None:
    assert clean_caption("  two\n\tlines\x00 \u2003 and\x1b more ") == "two lines and more"


@pytest.mark.parametrize("text", ["\u200b\u200b", "\u2800", "\u3164 \xa0", "\ufeff\u2060", "\ufe0f", "\x00 \n"])
def test_a_caption_in_which_nothing_is_visible_is_empty(text: str) -> None:
    assert clean_caption(text) == ""
    assert clean_caption(f"{text}a") != ""


def test_nesting_is_counted_outside_of_strings() -> None:
    assert not is_too_nested("[" * 100 + "]" * 100)
    assert is_too_nested('{"a":' * 101 + "1" + "}" * 101)
    assert not is_too_nested('["' + r"[[\"[" * 100 + '"]' + "[]" * 200)


def test_the_uid_of_a_bad_row_is_that_of_its_place() -> None:
    uids = {place_uid("web", "a.csv", 1), place_uid("web", "a.csv", 2), place_uid("web", "b.csv", 1)}
    assert len(uids) == 3
    assert place_uid("web", "a.csv", 1) in uids


@pytest.mark.parametrize(
    "text",
    ["\u200b\u200b", "\ufeff", "\u00ad \u200d", "\u2800", "\u3164", "\x00\x1b", "\u202e\u2066", "\u00a0"],
)
def test_a_caption_of_which_nothing_can_be_seen_is_empty(text: str) -> None:
    assert clean_caption(text) == ""


@pytest.mark.parametrize("text", ["!", "👍🏽", "猫", "e\u0301", "\u200ba", "\U0001fae9", "“"])
def test_a_caption_of_one_visible_character_is_kept(text: str) -> None:
    assert clean_caption(text) == text


@pytest.mark.parametrize("text", ["nan", "NaN", " NULL ", "None", "<NA>", "#N/A", "\\N"])
def test_what_programs_write_for_a_missing_value_is_missing(text: str) -> None:
    assert is_missing(text)


@pytest.mark.parametrize("text", ["", "nan bread", "0", "no", "Nano", "none of them"])
def test_words_are_not_missing(text: str) -> None:
    assert not is_missing(text)


def test_an_md5_has_32_hex_digits() -> None:
    assert problem_of("http://e/a", "words", expected_md5="0" * 32) is None
    assert problem_of("http://e/a", "words", expected_md5="0" * 31) == "bad_md5"
    assert "`bad_md5`" in PAGE
