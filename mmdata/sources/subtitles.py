"""Parses the caption file of one video: CSV, WebVTT or SubRip; damaged files are read as far as possible."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from mmdata.sources.caption_encoding import BAD_ENCODING, decoded
from mmdata.sources.problems import parse_time
from mmdata.sources.timed import Caption

BAD_CAPTIONS = "bad_captions"
"""The problem of a video whose captions cannot be parsed."""

MAX_CAPTIONS_BYTES = 1 << 26  # for one video; more is damage

_TIME = r"[+-]?[ \t]?\d+(?:[ \t]?:[ \t]?\d+)+(?:[ \t]?[.,][ \t]?\d+)?"
_TIMING = re.compile(rf"\s*+({_TIME})\s*+-{{1,3}}[ \t]?>\s*+({_TIME})(?!\S)")
# A line of times with one unreadable time. Other lines with "-->" are text, as in "press --> to go on".
_DAMAGED_TIMING = re.compile(rf"\s*+(?:{_TIME}\s*+-->|[\s\d:.,;?]*+-->\s*+{_TIME}(?!\S))")
_CUT_OFF_TIMING = re.compile(r"(?:\d+:)+\d*(?:[.,]\d*)?[ \t]*-{0,2}")
_NO_SPEECH = re.compile(r"NOTE(?:\s|$)|(?:STYLE|REGION)\s*$")  # begins a block of WebVTT that is no cue
_ASS_FIELDS = re.compile(r"Dialogue:\s?\d+(?:,[^,]*+){8},")  # what an ASS file has before the text of a line
_MISSING = frozenset({"nan", "NaN", "<NA>", "None"})
"""What Python and pandas write into a table for a text that is missing. People may say "none", so there is no more."""


def read_captions(data: bytes, suffix: str, encoding: str | None = None) -> list[Caption] | str:
    """The captions of a file, or the problem with it: `bad_captions` or `bad_encoding`. `encoding` as for `decoded`."""
    if len(data) > MAX_CAPTIONS_BYTES:
        return BAD_CAPTIONS
    text = decoded(data, encoding)
    if text is None:
        return BAD_ENCODING
    return from_csv(text) if suffix.lower() == ".csv" else from_cues(text)


def from_cues(text: str) -> list[Caption]:
    """The cues of WebVTT or SubRip; a cue is a line of times and the lines after it, up to the head of the next cue.

    Headings, numbers and blank lines may be missing, blank lines may stand within a cue, and the file may be cut off.
    Unreadable times are NaN.
    """
    captions: list[Caption] = []
    times: tuple[float, float] | None = None
    spoken: list[str] = []
    is_webvtt = text.lstrip().startswith("WEBVTT")
    is_speech = True
    for line in text.replace("\r\r\n", "\n").splitlines():  # a line end that was converted twice
        if new_times := _times_of(line):
            if times is not None:
                captions.append(_cue(times, _without_head(spoken, is_webvtt)))
            times, spoken, is_speech = new_times, [], True
        elif not line:
            is_speech = True
            spoken.append(line)
        elif spoken and not spoken[-1] and _NO_SPEECH.match(line):
            is_speech = False
        elif is_speech:
            spoken.append(_ASS_FIELDS.sub("", line, count=1))
    if times is not None:
        captions.append(_cue(times, _without_cut_off_head(spoken)))
    return captions


def _cue(times: tuple[float, float], lines: Sequence[str]) -> Caption:
    return Caption(*times, " ".join(filter(None, lines)))


def _times_of(line: str) -> tuple[float, float] | None:
    """Start and end in seconds if a line is the line of times of a cue; NaN if they cannot be read."""
    if ">" not in line:
        return None
    if timing := _TIMING.match(line):
        start, end = (seconds("".join(time.split())) for time in timing.groups())
        return start, end
    return (math.nan, math.nan) if _DAMAGED_TIMING.match(line) else None


def _without_head(lines: Sequence[str], is_webvtt: bool) -> Sequence[str]:
    """The lines between two lines of times, without the number or name of the second cue."""
    is_number = bool(lines) and lines[-1].strip().isdigit()
    is_name = is_webvtt and len(lines) > 1 and lines[-1] and not lines[-2]
    return lines[:-1] if is_number or is_name else lines


def _without_cut_off_head(lines: Sequence[str]) -> Sequence[str]:
    """The last lines of a file, without the number and the cut-off times of a cue that has no text any more."""
    end = len(lines)
    while end and not lines[end - 1]:
        end -= 1
    start = end
    while start and lines[start - 1]:
        start -= 1
    if start == 0:  # no blank line before it: the text of the cue
        return lines
    *number, last = lines[start:end]
    is_head = _CUT_OFF_TIMING.fullmatch(last) and all(line.strip().isdigit() for line in number) and len(number) < 2
    return lines[:start] if is_head else lines


def from_csv(text: str) -> list[Caption] | str:
    """The captions of a CSV file with the columns start, end and text, in any order.

    A comma in a text without quotation marks is read as part of it if the text is the last column. An open quotation
    mark, which swallows rows, is `bad_captions`.
    """
    captions = []
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = [name.strip().lower() for name in next(rows, [])]
        if not names:
            return []
        if any(names.count(name) != 1 for name in ("start", "end", "text")):
            return BAD_CAPTIONS
        start, end, said = (names.index(name) for name in ("start", "end", "text"))
        for row in filter(None, rows):
            is_last = said == len(names) - 1
            values = [*row[:said], ",".join(row[said:])] if is_last and len(row) > len(names) else row
            if len(values) != len(names):
                captions.append(Caption(math.nan, math.nan, ""))
                continue
            if "\n" in values[said] and _holds_rows(values[said], len(names), (start, end)):
                return BAD_CAPTIONS
            spoken = "" if values[said].strip() in _MISSING else values[said]
            captions.append(Caption(seconds(values[start]), seconds(values[end]), spoken))
    except csv.Error:  # such as a quotation mark that is never closed
        return BAD_CAPTIONS
    return captions


def _holds_rows(text: str, columns: int, times: tuple[int, int]) -> bool:
    """Whether a text has lines that are rows of the file themselves, since an open quotation mark swallowed them."""
    for line in text.splitlines()[1:]:
        values = line.split(",")
        if len(values) >= columns and all(parse_time(values[at]) is not None for at in times):
            return True
    return False


def seconds(value: Any) -> float:
    """A time in seconds; NaN if the value is not a time."""
    if type(value) is float:  # most values; checked first for speed
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        return math.nan
    try:
        parsed = float(value) if isinstance(value, int) else parse_time(value)
    except OverflowError:  # a whole number of hundreds of digits
        parsed = None
    return math.nan if parsed is None else parsed


def spoken_text(value: Any) -> str:
    """A value of a JSON list as the text of a caption; empty if it is none, such as NaN, null or a list."""
    if isinstance(value, str):
        # lone surrogates, which JSON can contain, become U+FFFD
        text = value if value.isascii() else value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return "" if text.strip() in _MISSING else text
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and not (isinstance(value, float) and math.isnan(value)) else ""
