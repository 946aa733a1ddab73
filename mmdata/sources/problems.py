"""Checks the raw values of a source row, and gives unusable rows a uid; docs/sources.md explains each problem."""

from __future__ import annotations

import math
import re

from mmdata.samples import sample_uid

MAX_URL_CHARS = 8_192
MAX_CAPTION_CHARS = 10_000
MAX_TEXT_CHARS = 1_000_000  # for samples without a medium
MAX_NESTING = 100  # of the JSON of a row; about ten times as much raises RecursionError in one reader or another
MAX_TIME_S = 1e8  # three years; no recording is longer

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
_HTTP = re.compile(r"https?:", re.IGNORECASE)
_HOST = re.compile(r"https?://[^/?#\s]*[^/?#\s@:]", re.IGNORECASE)
_LONG_REFERENCE = re.compile(r"#[0-9]{1000,}")
# Of JSON; a string without an end reaches to the end, or the time would be quadratic.
STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
NESTING_OF = {"[": 1, "{": 1, "]": -1, "}": -1}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_HOURS_MINUTES_SECONDS = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]+(?:\.[0-9]*)?)")
_SECONDS = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?")
# White space and the characters that no font shows: of width zero, of direction, and the fillers of Hangul and Braille.
_VISIBLE = re.compile(
    "[^\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)


_MISSING = frozenset(
    ("nan", "-nan", "<na>", "n/a", "na", "#n/a", "#na", "#n/a n/a", "null", "none", "\\n", "1.#ind", "1.#qnan")
)
"""What pandas, databases and spreadsheets write for a value that is missing, in lower case."""


def problem_of(
    url: str | None,
    caption: str | None,
    expected_sha256: str | None = None,
    kind: str = "image",
    expected_md5: str | None = None,
) -> str | None:
    """Why a row cannot be used; None if it can. Values are stripped, and the caption went through `clean_caption`."""
    if kind != "text" and (problem := url_problem(url)):
        return problem
    if not caption and kind != "audio":
        return "no_caption"
    if caption and len(caption) > (MAX_TEXT_CHARS if kind == "text" else MAX_CAPTION_CHARS):
        return "caption_too_long"
    if caption and _LONG_REFERENCE.search(caption):
        return "bad_caption"
    if expected_sha256 and not _SHA256.fullmatch(expected_sha256):
        return "bad_sha256"
    return "bad_md5" if expected_md5 and not _MD5.fullmatch(expected_md5) else None


def url_problem(url: str | None) -> str | None:
    """Why a URL, which is stripped, cannot be fetched at all; None if it may be."""
    if not url:
        return "no_url"
    if not _HTTP.match(url):
        return "not_http"
    if not _HOST.match(url):
        return "bad_url"
    return "url_too_long" if len(url) > MAX_URL_CHARS else None


def parse_time(text: str) -> float | None:
    """A time given in seconds (12.5) or as H:M:S (1:02:03.250 or 1:02:03,250), in seconds; None if it is neither.

    Only a time in seconds may be negative.
    """
    text = text.strip().replace(",", ".")
    if match := _HOURS_MINUTES_SECONDS.fullmatch(text):
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        time_s = hours * 3600 + minutes * 60 + seconds
    else:
        try:
            time_s = float(text) if _SECONDS.fullmatch(text) else math.nan
        except ValueError:  # such as 1.2.3
            return None
    return time_s if math.isfinite(time_s) else None


def is_too_nested(json_text: str) -> bool:
    """Whether lists and objects are nested deeper than `MAX_NESTING` in a JSON text."""
    if json_text.count("[") + json_text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for token in STRING_OR_BRACKET.finditer(json_text):
        depth += NESTING_OF.get(token[0], 0)
        if depth > MAX_NESTING:
            return True
    return False


def is_missing(text: str) -> bool:
    """Whether a value says that there is none, such as `NaN` or `NULL`."""
    return len(text) < 12 and text.strip().lower() in _MISSING  # 12: longer than the longest, with some spaces


def clean_caption(text: str) -> str:
    """The caption in one line, without control characters; each run of white space becomes one space.

    A caption in which nothing is visible becomes the empty string.
    """
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    return " ".join(text.split()) if _VISIBLE.search(text) else ""


def place_uid(source: str, file: str, row: int) -> str:
    """The uid of a row that cannot be used: a hash of its position, since its content may be missing or broken.

    Args:
        file: path relative to the folder that the source's pattern begins with, so that the corpus can be moved.
        row: 0-based number in the file.
    """
    return sample_uid(None, "\x1e".join(("row", source, file, str(row))))
