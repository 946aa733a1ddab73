"""Timed captions of one video in a file of its own: CSV, WebVTT or SubRip, read as far as they can be read."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from mmdata.sources.problems import parse_time
from mmdata.sources.timed import Caption

BAD = "bad_captions"
"""The problem of a file that is none of these."""

_TIME = r"(?:\d+:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_TIMING = re.compile(rf"({_TIME})\s*-->\s*({_TIME})")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_captions(data: bytes, suffix: str) -> list[Caption] | str:
    """The captions of a file, or the problem with it. Bytes that are no UTF-8 become replacement characters."""
    text = data.decode(_BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig"), "replace")
    return from_csv(text) if suffix.lower() == ".csv" else from_cues(text)


def from_cues(text: str) -> list[Caption]:
    """Cues of WebVTT or SubRip: a line of times and what follows it up to an empty one. Times may be NaN.

    Headings, numbers and blank lines may be missing, and the file may be cut off.
    """
    found: list[Caption] = []
    lines: list[str] = []
    times: tuple[float, float] | None = None
    for line in [*text.splitlines(), ""]:
        is_timing = "-->" in line
        if is_timing or not line:  # a line of blanks is part of a cue: YouTube writes such
            if times is not None:
                is_number = is_timing and bool(lines) and lines[-1].strip().isdigit()  # of the next cue
                found.append(Caption(*times, " ".join(lines[:-1] if is_number else lines)))
            times, lines = None, []
        if is_timing:
            timing = _TIMING.search(line)
            times = (seconds(timing[1]), seconds(timing[2])) if timing else (float("nan"), float("nan"))
        elif times is not None:
            lines.append(line)
    return found


def from_csv(text: str) -> list[Caption] | str:
    """Lines `start,end,text` under a header that names them, in any order."""
    found = []
    try:
        rows = csv.DictReader(io.StringIO(text))
        names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        if not {"start", "end", "text"} <= names.keys():
            return BAD if names else []
        for row in rows:
            start, end = seconds(row[names["start"]]), seconds(row[names["end"]])
            found.append(Caption(start, end, row[names["text"]] or ""))
    except csv.Error:  # such as a quote that never ends
        return BAD
    return found


def seconds(value: Any) -> float:
    """A time in seconds; NaN where it is none."""
    if type(value) is float:  # by far the most
        return value
    if isinstance(value, bool) or value is None:
        return float("nan")
    try:
        found = float(value) if isinstance(value, int) else parse_time(str(value))
    except OverflowError:  # a whole number of hundreds of digits
        found = None
    return float("nan") if found is None else found
