"""Text as the one font that every installation has (DejaVu Sans, shipped with matplotlib) can draw it."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

MISSING = "[…]"


def drawable(text: str) -> str:
    """The text on one line; each run of characters that the font lacks (CJK, most emoji) becomes `[…]`.

    Pictures for the UI must look the same on every machine, so system fonts are not asked; the HTML report shows the
    full text with the reader's own fonts.
    """
    known = _charmap()
    flat = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufe00-\ufe0f\ufeff]+", " ", text)
    out: list[str] = []
    for char in flat.strip():
        if ord(char) in known:
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
