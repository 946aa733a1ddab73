"""Reads the numbers and dates in the headers of a response. Strangers write them: nothing here ever raises."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

MAX_VALUE_CHARS = 200
"""A number, a date or a validator that is longer than this is no such thing."""

_SECONDS = re.compile(r"\s*(-?[0-9]{1,15})(?:\.[0-9]*)?\s*(?:,|$)")
_LENGTH = re.compile(r"[0-9]{1,15}")
_RANGE = re.compile(r"(?i)\s*bytes[\s=]+(?:([0-9]{1,15})\s*-\s*([0-9]{1,15})|\*)\s*/\s*(?:([0-9]{1,15})|\*)\s*")


class ContentRange(NamedTuple):
    """Which bytes of a file a response holds.

    Args:
        start, stop: the first byte, and the one after the last; None if the range could not be served.
        total: length of the whole file; None if the server does not say.
    """

    start: int | None
    stop: int | None
    total: int | None


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None if it holds neither.

    Of several values (`120, 120`) the first counts. A time in the past is 0.
    """
    if not value or len(value) > MAX_VALUE_CHARS:
        return None
    if seconds := _SECONDS.match(value):
        return float(max(0, int(seconds[1])))
    due = _date(value)
    if due is None:
        return None
    try:
        return max(0.0, (due - (now or datetime.now(UTC))).total_seconds())
    except OverflowError:  # a time zone moves the date out of the years 1 to 9999
        return None


def _date(value: str) -> datetime | None:
    """A date as mail and HTTP write it, or by ISO 8601. Without a time zone it is in UTC."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(value.strip())
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
        return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return None


def content_length(values: Iterable[str]) -> int | None:
    """The length that all Content-Length headers agree on (`5, 5` is 5); None if there is none, or they disagree."""
    lengths = {length.strip() for value in values for length in value.split(",")}
    length = lengths.pop() if len(lengths) == 1 else ""
    return int(length) if _LENGTH.fullmatch(length) else None


def content_range(value: str | None) -> ContentRange | None:
    """The range of a Content-Range header: `bytes 0-499/1234`, `bytes 0-499/*`, `bytes */1234`; None if it has none."""
    if not value or len(value) > MAX_VALUE_CHARS or (read := _RANGE.fullmatch(value)) is None:
        return None
    start, last, total = (None if number is None else int(number) for number in read.groups())
    return ContentRange(start, None if last is None else last + 1, total)


def validator(value: str | None) -> str | None:
    """An ETag or a date that identifies a version of a file; None if it is too long to be kept or sent."""
    return value if value and len(value) <= MAX_VALUE_CHARS else None
