"""Numbers and dates in headers: what they say, and that nothing that a stranger writes there raises."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.web.header_values import ContentRange, content_length, content_range, retry_after_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATES = ("Thu, 01 Jan 2026 00:02:00 GMT", "Mon, 01 Jan 99999 00:00:00 GMT", "2026-11-28T17:00:00Z")
PIECES = (
    "bytes",
    " ",
    "-",
    "/",
    "*",
    "=",
    ",",
    "0",
    "9",
    "²",
    "٣",
    "9" * 20,
    "+9999999999",
    "e",
    ".",
    "nan",
    "inf",
    "\x00",
)
FRAGMENTS = st.sampled_from((*DATES, *PIECES))
VALUES = st.text(max_size=40) | st.lists(FRAGMENTS, max_size=8).map("".join)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 120.9 ", 120.0),
        ("120, 120", 120.0),
        ("-5", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("²", None),
        ("9" * 5000, None),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        ("Thu, 01 Jan 2026 00:02:00 -0000", 120.0),
        ("2026-01-01T00:02:00Z", 120.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Thu, 99 Jan 2026 00:02:00 GMT", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 251_635_161_539.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(header, seconds):
    assert retry_after_s(header, NOW) == seconds


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ([], None),
        (["5"], 5),
        ([" 5 "], 5),
        (["5", "5"], 5),
        (["5, 5"], 5),
        (["5", "6"], None),
        (["²"], None),
        (["٣"], None),
        (["-5"], None),
        (["5_0"], None),
        (["9" * 5000], None),
        ([""], None),
    ],
)
def test_a_content_length_is_one_number_of_ascii_digits(values, length):
    assert content_length(values) == length


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("bytes 0-499/1234", ContentRange(0, 500, 1234)),
        ("Bytes=0-499/1234", ContentRange(0, 500, 1234)),
        ("bytes 0-499/*", ContentRange(0, 500, None)),
        ("bytes */1234", ContentRange(None, None, 1234)),
        ("bytes 0-²/1234", None),
        ("items 0-1/2", None),
        ("", None),
        (None, None),
    ],
)
def test_a_content_range_names_the_bytes_that_come(value, parts):
    assert content_range(value) == parts


@given(VALUES)
def test_no_value_of_a_header_raises(value):
    seconds = retry_after_s(value)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
    assert (content_length([value, value]) or 0) >= 0
    content_range(value)
