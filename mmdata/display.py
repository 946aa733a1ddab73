"""Makes text from outside safe to show: removes control characters and credentials, and escapes Markdown."""

from __future__ import annotations

import html
import re
import unicodedata

REPLACEMENT = "\ufffd"
_JOINERS = "\u200c\u200d"  # needed inside words of Persian and Hindi, and inside emoji
_MARKDOWN = re.compile(r"([\\`*_\[\]()!|~#])")

# Strangers write the text, so each pattern must take time in proportion to it (tests/hostile/test_regexes.py).
_WORD = re.compile(r"\S+")
# A password may contain @ or a slash, so it extends to the last @; a number after a host and a colon is a port.
_LOGIN = re.compile(r"[^\s/:@]++(?::(?!\d++[/?#])\S*)?@")
_PARAMETER_NAME = re.compile(r"(?<![^=&#\s])([^=&#\s]++)=")
_PARAMETER_VALUE = re.compile(r"[^&#\s\"']+")
_SECRET_NAME = re.compile(r"(?i)token|secret|signature|passw|credential|api_?key|access_?key|jwt")
_SHORT_SECRET_NAMES = frozenset({"sig", "key", "auth"})
# API keys of well-known services, anywhere in the text: Hugging Face, AWS, GitHub, OpenAI.
_KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,})\b"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9+/_.=-]{12,}")


def without_credentials(text: str) -> str:
    """The text without API keys, and without the user names, passwords and signatures of its URLs."""
    text = _without_secret_parameters(text)
    if "://" in text:
        text = _WORD.sub(_without_logins, text)
    return _BEARER.sub(r"\1 …", _KEYS.sub("…", text))


def cut(text: str, most: int) -> str:
    """The text, or its first `most` characters and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


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


def _without_secret_parameters(text: str) -> str:
    """The text with an ellipsis for the value of each `?name=value` and `&name=value` whose name tells of a secret."""
    pieces, kept_from, at = [], 0, 0
    while (name := _PARAMETER_NAME.search(text, at)) is not None:
        at = name.end()
        if _is_secret(name, text) and (value := _PARAMETER_VALUE.match(text, at)) is not None:
            pieces += [text[kept_from:at], "…"]
            at = kept_from = value.end()
    return "".join([*pieces, text[kept_from:]])


def _is_secret(name: re.Match[str], text: str) -> bool:
    is_first = text[name.start() - 1 : name.start()] not in ("&", "#")
    parameter = name[1].partition("?")[2] if is_first else name[1]
    return parameter.rpartition("?")[2].lower() in _SHORT_SECRET_NAMES or _SECRET_NAME.search(parameter) is not None


def _without_logins(word: re.Match[str]) -> str:
    """A word without the login data of the URLs in it."""
    text, end = word[0], word[0].rfind("@") + 1
    pieces, at = [], 0
    while (scheme := text.find("://", at, end)) >= 0:
        host = scheme + 3
        pieces.append(text[at:host])
        login = _LOGIN.match(text, host, end)  # the text ends in @ there, so a password never needs a second try
        at = login.end() if login is not None else host
    return "".join([*pieces, text[at:]])


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"
