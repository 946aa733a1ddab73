"""The font of contact sheets (DejaVu Sans, which matplotlib ships), and the text that it can draw."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

MISSING = "[…]"


def drawable(text: str) -> str:
    """The text on one line, where each run of characters that the font lacks (CJK, most emoji) becomes `[…]`.

    No system font is used, so that the pictures look the same on every machine. The HTML report shows the full text in
    the fonts of the reader.
    """
    drawable_codes = _charmap()
    flat = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufe00-\ufe0f\ufeff]+", " ", text)
    out: list[str] = []
    for char in flat.strip():
        if ord(char) in drawable_codes:
            out.append(char)
        elif not out or out[-1] != MISSING:
            out.append(MISSING)
    return "".join(out)


@lru_cache(maxsize=16)
def font(size_px: int) -> Any:
    """The font for Pillow, at a size in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(), size_px)


@cache
def _charmap() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


@cache
def _font_file() -> str:
    from matplotlib import get_data_path

    return f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
