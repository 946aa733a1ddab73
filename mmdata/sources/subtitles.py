"""Parses the caption file of one video: CSV, WebVTT or SubRip; damaged files are read as far as possible."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from mmdata.sources.problems import parse_time
from mmdata.sources.timed import Caption

BAD_CAPTIONS = "bad_captions"
"""The problem of a video whose captions cannot be parsed."""

_TIME = r"(?:\d+:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_TIMING = re.compile(rf"({_TIME})\s*-->\s*({_TIME})")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_captions(data: bytes, suffix: str) -> list[Caption] | str:
    """The captions of a file, or the problem with it. Invalid UTF-8 becomes replacement characters."""
    text = data.decode(_BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig"), "replace")
    return from_csv(text) if suffix.lower() == ".csv" else from_cues(text)


def from_cues(text: str) -> list[Caption]:
    """The cues of WebVTT or SubRip; a cue is a line of times and the lines after it, up to an empty line.

    Headings, numbers and blank lines may be missing, and the file may be cut off. Unreadable times are NaN.
    """
    captions: list[Caption] = []
    lines: list[str] = []
    times: tuple[float, float] | None = None
    for line in [*text.splitlines(), ""]:
        is_timing = "-->" in line
        if is_timing or not line:  # a line of spaces belongs to the cue: YouTube writes such lines
            if times is not None:
                is_number = is_timing and bool(lines) and lines[-1].strip().isdigit()  # of the next cue
                captions.append(Caption(*times, " ".join(lines[:-1] if is_number else lines)))
            times, lines = None, []
        if is_timing:
            timing = _TIMING.search(line)
            times = (seconds(timing[1]), seconds(timing[2])) if timing else (float("nan"), float("nan"))
        elif times is not None:
            lines.append(line)
    return captions


def from_csv(text: str) -> list[Caption] | str:
    """The captions of a CSV file with the columns start, end and text, in any order."""
    captions = []
    try:
        rows = csv.DictReader(io.StringIO(text))
        names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        if not {"start", "end", "text"} <= names.keys():
            return BAD_CAPTIONS if names else []
        for row in rows:
            start, end = seconds(row[names["start"]]), seconds(row[names["end"]])
            captions.append(Caption(start, end, row[names["text"]] or ""))
    except csv.Error:  # such as a quotation mark that is never closed
        return BAD_CAPTIONS
    return captions


def seconds(value: Any) -> float:
    """A time in seconds; NaN if the value is not a time."""
    if type(value) is float:  # most values; checked first for speed
        return value
    if isinstance(value, bool) or value is None:
        return float("nan")
    try:
        parsed = float(value) if isinstance(value, int) else parse_time(str(value))
    except OverflowError:  # a whole number of hundreds of digits
        parsed = None
    return float("nan") if parsed is None else parsed
