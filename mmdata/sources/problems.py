"""Checks the raw values of a source row, and gives unusable rows a uid; docs/sources.md explains each problem."""

from __future__ import annotations

import math
import re

from mmdata.samples import sample_uid

MAX_URL_CHARS = 8_192
MAX_CAPTION_CHARS = 10_000
MAX_TEXT_CHARS = 1_000_000  # for samples without a medium

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
_HTTP = re.compile(r"https?:", re.IGNORECASE)
_HOST = re.compile(r"https?://[^/?#\s]*[^/?#\s@:]", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def problem_of(
    url: str | None, caption: str | None, expected_sha256: str | None = None, kind: str = "image"
) -> str | None:
    """Why a row cannot be used; None if it can. Values are stripped, and the caption went through `clean_caption`."""
    if kind != "text" and (problem := _url_problem(url)):
        return problem
    if not caption and kind != "audio":
        return "no_caption"
    if caption and len(caption) > (MAX_TEXT_CHARS if kind == "text" else MAX_CAPTION_CHARS):
        return "caption_too_long"
    if expected_sha256 and not _SHA256.fullmatch(expected_sha256):
        return "bad_sha256"
    return None


def _url_problem(url: str | None) -> str | None:
    if not url:
        return "no_url"
    if not _HTTP.match(url):
        return "not_http"
    if not _HOST.match(url):
        return "bad_url"
    return "url_too_long" if len(url) > MAX_URL_CHARS else None


def parse_time(text: str) -> float | None:
    """A time given in seconds (12.5) or as H:M:S (1:02:03.250 or 1:02:03,250), in seconds; None if it is neither."""
    parts = text.strip().replace(",", ".").split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return None
    if len(values) > 3 or not all(math.isfinite(value) for value in values):
        return None
    if len(values) > 1 and any(value < 0 for value in values):
        return None
    seconds = float(sum(value * 60**power for power, value in enumerate(reversed(values))))
    return seconds if math.isfinite(seconds) else None


def clean_caption(text: str) -> str:
    """The caption in one line, without control characters; each run of white space becomes one space."""
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    return " ".join(text.split())


def place_uid(source: str, file: str, row: int) -> str:
    """The uid of a row that cannot be used: a hash of its position, since its content may be missing or broken.

    Args:
        file: path relative to the folder that the source's pattern begins with, so that the corpus can be moved.
        row: 0-based number in the file.
    """
    return sample_uid(None, "\x1e".join(("row", source, file, str(row))))
