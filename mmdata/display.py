"""Text from outside, as it may be shown: on a terminal, on a page, in Markdown."""

from __future__ import annotations

import html
import re
import unicodedata

from mmdata.secrets import without_credentials

REPLACEMENT = "\ufffd"
_JOINERS = "\u200c\u200d"  # within words of Persian and Hindi, and within emoji
_MARKDOWN = re.compile(r"([\\`*_\[\]()!|~#])")


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
