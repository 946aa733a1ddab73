"""Plain text of captions: takes out the markup of WebVTT, SubRip and ASS, and resolves HTML entities."""

from __future__ import annotations

import html
import re

_CLASSES = r"(?:\.[^\s<>.]++)*+"  # <c.yellow.bg_blue>
_ATTRIBUTE = r"""\s++[\w-]++\s*+=\s*+(?:"[^"<>]*+(?:"|\Z)|'[^'<>]*+(?:'|\Z)|[^\s<>"']++)"""
# Only known tags are taken out, since people also write "a < b and c > d". Short names must be followed by nothing but
# classes and attributes; the names of _LONG are no words of a sentence, and speakers and languages are free text.
_SHORT = r"b|big|br|c|center|del|div|em|i|ins|p|q|rb|rp|rt|ruby|s|small|strike|strong|sub|sup|tt|u"
_LONG = r"font|span"
_TAG = re.compile(
    rf"<(?P<close>/?)(?:(?P<name>{_SHORT}){_CLASSES}(?:{_ATTRIBUTE})*+\s*+/?+>"
    rf"|(?P<voice>v|lang){_CLASSES}(?:\s[^<>]*+)?+>"
    rf"|(?:{_LONG})(?:\s[^<>]*+)?+>"
    rf"|(?:{_LONG})(?:{_ATTRIBUTE})++"  # the end of the tag is missing
    r"|(?P<time>(?:\d{1,9}:)?\d{1,2}:\d\d(?:[.,]\d{1,3})?)>)",
    re.IGNORECASE,
)
_SEPARATORS = frozenset({"br", "div", "p", "rb", "rp", "rt"})  # the words before and after them are different words
_ASS = re.compile(r"\{\\[^{}]*\}|\{/?[biu]\}|\{[cfhopsy]:[^{}\s]{1,40}\}", re.IGNORECASE)  # {\an8}, {i}, {y:b}
_ASS_SPACE = re.compile(r"\\[Nh]")  # line break and hard space
_LONG_NUMBER = re.compile(r"&#([0-9]{8,});?")


def plain_text(text: str) -> str:
    """The text of a caption without tags and entities; white space stays as it is.

    Tags within a word leave the word whole; a line break, a new speaker and a ruby text begin a new word. An entity
    that names no character becomes U+FFFD.
    """
    if "<" in text:
        text = _TAG.sub(_in_place_of_tag, text)
    if "{" in text:
        text = _ASS.sub("", text)
    if "\\" in text:
        text = _ASS_SPACE.sub(" ", text)
    if "&" in text:
        # int() refuses more than 4,300 digits, and html.unescape does not catch its error
        text = html.unescape(_LONG_NUMBER.sub(_short_number, text))
    return text


def _in_place_of_tag(tag: re.Match[str]) -> str:
    separates = tag["voice"] or (tag["name"] or "").lower() in _SEPARATORS
    return " " if separates else ""


def _short_number(reference: re.Match[str]) -> str:
    digits = reference[1].lstrip("0") or "0"
    return f"&#{digits};" if len(digits) < 8 else "\ufffd"
