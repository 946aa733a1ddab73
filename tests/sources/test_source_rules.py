"""Which rows a source's filter lets in: a function of the row and the rules."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.config.source_filter import SourceFilter
from mmdata.sources.source_rules import rule_reasons


def row(number: int = 0, caption: str | None = "a cat on a mat", lang: str | None = None, **extra: Any) -> dict:
    keys = {"uid": f"{number:032x}", "url": "http://e.org/a.jpg", "expected_sha256": None}
    return {**keys, "caption": caption, "lang": lang, "extra": json.dumps(extra)}


def reason(rules: dict[str, Any], **columns: Any) -> str | None:
    return rule_reasons([row(**columns)], SourceFilter(**rules)).get(f"{0:032x}")


@pytest.mark.parametrize(
    ("rules", "good", "bad", "name"),
    [
        ({"min": {"similarity": 0.3}}, {"similarity": 0.3}, {"similarity": 0.29}, "min.similarity"),
        ({"min": {"CLIP_B32": 0.3}}, {"clip_b32": "0.31"}, {"clip_b32": "0.2"}, "min.CLIP_B32"),
        ({"max": {"aesthetic": 5}}, {"aesthetic": 5}, {"aesthetic": 5.1}, "max.aesthetic"),
        ({"one_of": {"LICENSE": ["cc-by", "cc0"]}}, {"LICENSE": "CC0"}, {"LICENSE": "?"}, "one_of.LICENSE"),
        ({"languages": ["en"]}, {"lang": "en"}, {"lang": "de"}, "languages"),
        ({"one_of": {"LANGUAGE": "en"}}, {"lang": "en"}, {"lang": "de"}, "one_of.LANGUAGE"),
        ({"min_side": 200}, {"WIDTH": 200, "HEIGHT": 900}, {"WIDTH": 199, "HEIGHT": 900}, "min_side"),
        (
            {"max_aspect": 3},
            {"original_width": 100, "original_height": 300},
            {"original_width": 100, "original_height": 301},
            "max_aspect",
        ),
        ({"max_punsafe": 0.5}, {"punsafe": 0.5}, {"punsafe": 0.6}, "max_punsafe"),
        ({"max_punsafe": 0.4}, {"NSFW": "UNLIKELY"}, {"NSFW": "NSFW"}, "max_punsafe"),
        ({"max_pwatermark": 0.8}, {"pwatermark": 0.1}, {"pwatermark": 0.9}, "max_pwatermark"),
        ({"min_words": 3}, {"caption": "one two three"}, {"caption": "one two"}, "min_words"),
        ({"min_chars": 5}, {"caption": "12345"}, {"caption": "1234"}, "min_chars"),
    ],
)
def test_a_rule_lets_in_and_keeps_out(rules: dict, good: dict, bad: dict, name: str) -> None:
    assert reason(rules, **good) is None
    assert reason(rules, **bad) == f"rule:{name}"
    assert reason(rules | {"missing": "keep"}, **bad) == f"rule:{name}"


@pytest.mark.parametrize("value", [None, math.nan, "", "no number"])
def test_a_missing_value_fails_unless_missing_rows_are_kept(value: Any) -> None:
    rules = {"min": {"similarity": 0.3}}
    assert reason(rules, similarity=value) == "rule:min.similarity"
    assert reason(rules | {"missing": "keep"}, similarity=value) is None
    assert reason({"min_side": 10}, width=20) == "rule:min_side"
    assert reason({"max_punsafe": 0.5}) == "rule:max_punsafe"


def test_the_first_rule_that_fails_is_the_reason() -> None:
    rules = {"min": {"a": 1, "b": 1}, "min_chars": 99}
    assert reason(rules, a=0, b=0) == "rule:min.a"
    assert reason(rules, a=1, b=0) == "rule:min.b"
    assert reason(rules, a=1, b=1) == "rule:min_chars"


def test_ids_are_kept_or_left_out(tmp_path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("0" * 31 + "7\n5\n")
    rows = [row(0, uid=0), row(1, uid=5), row(2)]
    rows[0]["extra"] = json.dumps({"uid": "0" * 31 + "7"})
    kept = rule_reasons(rows, SourceFilter(keep_ids=str(path)))
    assert kept == {f"{2:032x}": "rule:keep_ids"}
    left_out = rule_reasons(rows, SourceFilter(drop_ids=str(path), missing="keep"))
    assert left_out == {f"{0:032x}": "rule:drop_ids", f"{1:032x}": "rule:drop_ids"}


VALUES = st.one_of(st.none(), st.floats(-1, 1), st.sampled_from(["x", "0.5"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES, st.text(max_size=6)), max_size=15), st.randoms(), st.integers(0, 15))
def test_a_verdict_depends_on_its_row_alone(given_rows, random, cut: int) -> None:
    """In any order, in any slices, and whatever rows come later."""
    rows = [row(n, caption, similarity=a, punsafe=b) for n, (a, b, caption) in enumerate(given_rows)]
    rules = SourceFilter(min={"similarity": 0.0}, max_punsafe=0.3, min_chars=2, missing="keep")
    whole = rule_reasons(rows, rules)
    shuffled = random.sample(rows, len(rows))
    assert rule_reasons(shuffled, rules) == whole
    assert rule_reasons(rows[:cut], rules) | rule_reasons(rows[cut:], rules) == whole


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, max_size=15), st.floats(-1, 1), st.floats(0, 1))
def test_a_looser_bound_lets_in_all_that_a_narrower_one_did(values, bound: float, looser_by: float) -> None:
    rows = [row(number, similarity=value) for number, value in enumerate(values)]
    narrow = rule_reasons(rows, SourceFilter(min={"similarity": bound}))
    loose = rule_reasons(rows, SourceFilter(min={"similarity": bound - looser_by}))
    assert set(loose) <= set(narrow)
