"""Makes text from outside safe to show: removes control characters and credentials, and escapes Markdown."""

from __future__ import annotations

import html
import re
import unicodedata

REPLACEMENT = "\ufffd"
_JOINERS = "\u200c\u200d"  # needed inside words of Persian and Hindi, and inside emoji
_MARKDOWN = re.compile(r"([\\`*_\[\]()!|~#])")

# A password may contain @ or a slash, so it extends to the last @; a number after a host and a colon is a port.
_USERINFO = re.compile(r"(?<=://)[^\s/:@]+(?::(?!\d+(?:[/?#\s]|$))\S*)?@")
_SIGNED = re.compile(
    r"(?i)([?&#](?:[^=&#\s]*(?:token|secret|signature|passw|credential|api_?key|access_?key|jwt)[^=&#\s]*|sig|key|auth)=)"
    r"[^&#\s\"']+"
)
# API keys of well-known services, anywhere in the text: Hugging Face, AWS, GitHub, OpenAI.
_KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,})\b"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9+/_.=-]{12,}")


def without_credentials(text: str) -> str:
    """The text without API keys, and without the user names, passwords and signatures of its URLs."""
    text = _USERINFO.sub("", _SIGNED.sub(r"\1…", text))
    return _BEARER.sub(r"\1 …", _KEYS.sub("…", text))


def printable(text: str) -> str:
    """The text without characters that could control a terminal or reverse the reading direction.

    Control and format characters (escape sequences, bidi overrides and isolates, lone surrogates) become U+FFFD; line
    ends, letters, marks and spaces stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char == "\n" or _is_shown(char) else REPLACEMENT for char in text)


def shown(text: str) -> str:
    """Text from outside in the form to show: `printable`, and without credentials."""
    return printable(without_credentials(text))


def markdown(text: str, most: int = 160) -> str:
    """At most `most` characters of a text, escaped for one line of Markdown: markup, HTML, pictures have no effect."""
    flat = " ".join(shown(text).split())[:most]
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(flat, quote=False))
    # a zero-width space keeps viewers from turning addresses into links
    return escaped.replace("://", ":\u200b//").replace("www.", "www\u200b.")


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"
