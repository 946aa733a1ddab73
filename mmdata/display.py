"""Text from outside, made safe to show on a terminal, a page or in Markdown: no control characters or credentials."""

from __future__ import annotations

import html
import re
import unicodedata

REPLACEMENT = "\ufffd"
_JOINERS = "\u200c\u200d"  # within words of Persian and Hindi, and within emoji
_MARKDOWN = re.compile(r"([\\`*_\[\]()!|~#])")

# A password may hold an @ or a slash of its own; what follows a host's colon is a port if it is a number.
_USERINFO = re.compile(r"(?<=://)[^\s/:@]+(?::(?!\d+(?:[/?#\s]|$))\S*)?@")
_SIGNED = re.compile(
    r"(?i)([?&#](?:[^=&#\s]*(?:token|secret|signature|passw|credential|api_?key|access_?key|jwt)[^=&#\s]*|sig|key|auth)=)"
    r"[^&#\s\"']+"
)
# What keys of well-known services look like, wherever they stand: Hugging Face, AWS, GitHub, and a header's own.
_KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,})\b"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9+/_.=-]{12,}")


def without_credentials(text: str) -> str:
    """Text without the user names, passwords and signing parameters of the URLs in it, and without keys of services."""
    text = _USERINFO.sub("", _SIGNED.sub(r"\1…", text))
    return _BEARER.sub(r"\1 …", _KEYS.sub("…", text))


def printable(text: str) -> str:
    """Text without what would move a cursor, name a window, or turn the reading direction around.

    Control and format characters (escape sequences, bidi overrides and isolates, half characters of UTF-16) become
    U+FFFD; ends of lines stay, and so do all letters, marks and spaces.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char == "\n" or _is_shown(char) else REPLACEMENT for char in text)


def shown(text: str) -> str:
    """Text from outside as it is shown: `printable`, and without credentials."""
    return printable(without_credentials(text))


def markdown(text: str, most: int = 160) -> str:
    """Text on one line of Markdown, as itself: no markup, no HTML, no picture that would be fetched.

    Args:
        most: characters that are shown.
    """
    flat = " ".join(shown(text).split())[:most]
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(flat, quote=False))
    return escaped.replace("://", ":\u200b//").replace(
        "www.", "www\u200b."
    )  # or addresses would be links by themselves


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"
