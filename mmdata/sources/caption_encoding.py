"""Decodes files of captions: UTF-8, UTF-16, UTF-32, Windows-1252, or the encoding that corpus.yaml names."""

from __future__ import annotations

import codecs
import re

BAD_ENCODING = "bad_encoding"
"""The problem of captions whose encoding is not known."""

_MARKS = {  # the mark of UTF-32 begins with the one of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MIN_ZERO_SHARE = 0.1  # of every second byte, in UTF-16 without a mark: digits, spaces and line ends have a zero byte
MAX_ODD_SHARE = 0.2

_HIGH = re.compile(r"[^\x00-\x7f]")
# Letters of Western languages stand alone or in pairs between ASCII letters, and signs do not stand within words. In
# another encoding the same bytes are whole words, Cyrillic for example, or signs within words, such as Polish "pi³ka".
_HIGH_WORD = re.compile(r"[À-ÖØ-öø-ÿŒœŠšŽžŸƒ]{3,}")
_SIGN_IN_WORD = re.compile(r"(?<=[^\W\d_])(?:[^\x00-\x7f\w’‘´·–—…]|[¹³ª])(?=[^\W\d_])")  # noqa: RUF001
_UNUSUAL_SIGN = re.compile(r"[¤¦¬\xad¯¸¶µ±ˆ˜¨†‡]")  # noqa: RUF001
_CAPITAL_IN_WORD = re.compile(r"(?<=[a-zß-öø-ÿ])[À-ÖØ-ÞŒŠŽŸ]")
_NORDIC, _SOUTHERN = frozenset("øðþØÐÞ"), frozenset("ìùçÌÙÇ")
"""No Western language has letters of both; Czech and Turkish do when they are read as Windows-1252."""


def decoded(data: bytes, encoding: str | None = None) -> str | None:
    """The text of a file of captions, without a byte order mark; None if its encoding cannot be told.

    Bytes that are damaged become U+FFFD.

    Args:
        encoding: for bytes that are neither UTF-8 nor UTF-16 or UTF-32; None: Windows-1252 if the text then looks like
            a Western language.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return data.decode(name, "replace")
    if utf16 := _unmarked_utf16(data):
        return data.decode(utf16, "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
    damaged = text.count("\ufffd")
    if len(_HIGH.findall(text)) - damaged >= damaged:
        return text
    if encoding:
        return data.decode(encoding, "replace")
    text = data.decode("cp1252", "replace")
    return text if _is_western(text) else None


def _unmarked_utf16(data: bytes) -> str | None:
    even, odd = data[:4096:2], data[1:4096:2]
    if not odd:
        return None
    even_share, odd_share = even.count(0) / len(even), odd.count(0) / len(odd)
    if max(even_share, odd_share) < MIN_ZERO_SHARE or min(even_share, odd_share) > max(even_share, odd_share) / 10:
        return None
    return "utf-16-le" if odd_share > even_share else "utf-16-be"


def _is_western(text: str) -> bool:
    letters = set(text)
    if letters & _NORDIC and letters & _SOUTHERN:
        return False
    odd = text.count("\ufffd") + sum(map(len, _HIGH_WORD.findall(text)))
    odd += sum(len(pattern.findall(text)) for pattern in (_SIGN_IN_WORD, _UNUSUAL_SIGN, _CAPITAL_IN_WORD))
    return odd <= MAX_ODD_SHARE * len(_HIGH.findall(text))
