"""What is known of languages before a caption is read: how common they are, their scripts and their relatives."""

from __future__ import annotations

from collections.abc import Mapping

WEB_PERCENT: Mapping[str, float] = {
    "en": 45, "ru": 6, "de": 5.6, "ja": 5.2, "zh": 5, "es": 4.6, "fr": 4.4, "it": 2.5, "pt": 2.3, "nl": 1.9, "pl": 1.8,
    "tr": 1.1, "cs": 1.1, "vi": 1, "id": 1, "ko": 0.8, "ar": 0.7, "fa": 0.7, "sv": 0.7, "uk": 0.6, "el": 0.6,
    "hi": 0.6, "hu": 0.6, "ro": 0.6, "da": 0.5, "fi": 0.4, "th": 0.4, "sk": 0.4, "no": 0.35, "bg": 0.3, "he": 0.25,
    "hr": 0.2, "ca": 0.2, "sr": 0.2, "lt": 0.18, "sl": 0.15, "et": 0.14, "lv": 0.1, "bn": 0.1, "ms": 0.05,
}  # fmt: skip
"""Language -> share of web pages in percent, roughly as in Common Crawl's statistics."""

OTHER_LANGUAGE_PERCENT = 0.02

ODDS: Mapping[str, float] = {"en": 5.0, "ru": 1.5, "gd": 1.5, "zu": 1.5}
"""What multiplies a language's likelihood beside its share of the web.

Names of places, products and works stand in English captions more often than in others. The other languages lose to
their relatives without it; on one half of the labelled captions it gives them the recall that they had before.
"""

SCRIPTS: Mapping[str, str] = {
    "Cyrillic": "ru uk bg sr mk be kk ky mn tg tt ba uz uzs az crh",
    "Arabic": "ar fa ur ps ug sdh ku az uzs ary arz",
    "Devanagari": "hi mr ne sa gom",
    "Han": "zh ja yue wuu",
    "Kana": "ja",
    "Hangul": "ko",
    "Greek": "el grc",
    "Hebrew": "he hbo",
    "Thai": "th",
    "Lao": "lo",
    "Khmer": "km",
    "Myanmar": "my",
    "Ethiopic": "am",
    "Armenian": "hy",
    "Georgian": "ka",
    "Bengali": "bn as",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Oriya": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Tibetan": "dz",
}
"""Script of Unicode -> the languages that are written in it; all others are written in Latin letters.

Kana stands for Hiragana and Katakana: a text that has some is Japanese, whatever its number of Han characters.
"""

ALSO_LATIN = "sr az uz uzs ku crh mn kk tg tt"
"""Languages of another script that are written in Latin letters, too."""

RELATIVES: Mapping[str, str] = {
    "id": "ms", "jv": "ms", "ace": "ms", "gl": "pt es", "an": "es", "ext": "es", "oc": "ca fr", "wa": "fr",
    "gcf": "fr", "gcr": "fr", "ht": "fr", "vec": "it", "lij": "it", "la": "it", "af": "nl", "fy": "nl", "lb": "de",
    "nn": "no", "fo": "is", "se": "fi", "bs": "hr", "sr": "hr", "mk": "bg sr", "kk": "ru", "ky": "ru", "mn": "ru",
    "tg": "ru", "tt": "ru", "ba": "ru", "ltg": "lv", "uz": "tr", "uzs": "tr", "tk": "tr", "crh": "tr", "eo": "es it",
    "mt": "it", "bcl": "tl", "ps": "fa ur", "sdh": "fa", "ug": "fa", "ne": "hi mr", "sa": "hi mr", "gom": "mr hi",
    "as": "bn", "pcm": "en",
}  # fmt: skip
"""A language -> those that eldc takes it for: eldc does not know it, or, of Serbian, not in Latin letters."""

MERGED: Mapping[str, str] = {"yue": "zh", "wuu": "zh", "arz": "ar", "ary": "ar"}
"""A spoken variety -> the written language that it counts as."""
