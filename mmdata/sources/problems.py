"""What is wrong with a row, told from its raw values, and what identifies it then."""

from __future__ import annotations

import re

from mmdata.samples import sample_uid

MAX_URL_CHARS = 8_192
MAX_CAPTION_CHARS = 10_000

PROBLEMS = {
    "malformed_row": "the line is no CSV record or JSON object of the file's shape",
    "unreadable": "the Parquet row group that holds it is corrupt",
    "bad_encoding": "URL or caption is not UTF-8",
    "no_url": "no URL",
    "not_http": "the URL's scheme is neither http nor https",
    "bad_url": "the URL names no host",
    "url_too_long": f"the URL has more than {MAX_URL_CHARS:,} characters",
    "no_caption": "no caption, or nothing to be seen in it",
    "caption_too_long": f"the caption has more than {MAX_CAPTION_CHARS:,} characters; cut, it would say something else",
    "bad_sha256": "the expected SHA-256 is not 64 hex digits, so what is fetched could not be checked",
}
"""Problem -> what it means. The first that applies, in this order, is a row's `problem`."""

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
_HTTP = re.compile(r"https?:", re.IGNORECASE)
_HOST = re.compile(r"https?://[^/?#\s]*[^/?#\s@:]", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def problem_of(url: str | None, caption: str | None, expected_sha256: str | None = None) -> str | None:
    """Why a row cannot be used; None where it can.

    Args:
        url: stripped.
        caption: as `clean_caption` gives it.
        expected_sha256: stripped and in lower case.
    """
    if not url:
        return "no_url"
    if not _HTTP.match(url):
        return "not_http"
    if not _HOST.match(url):
        return "bad_url"
    if len(url) > MAX_URL_CHARS:
        return "url_too_long"
    if not caption:
        return "no_caption"
    if len(caption) > MAX_CAPTION_CHARS:
        return "caption_too_long"
    if expected_sha256 and not _SHA256.fullmatch(expected_sha256):
        return "bad_sha256"
    return None


def clean_caption(text: str) -> str:
    """A caption in one line: control characters (NUL among them) gone, each run of white space one space."""
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    return " ".join(text.split())


def place_uid(source: str, file: str, row: int) -> str:
    """The uid of a row that cannot be used: by where it stands, since nothing else tells it from others.

    Args:
        file: relative to the folder that the source's pattern begins with, so that the corpus may move.
        row: 0-based number in the file.
    """
    return sample_uid(None, "\x1e".join(("row", source, file, str(row))))
