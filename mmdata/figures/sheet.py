"""Contact sheets: samples with their captions and scores, as a JPEG of less than 20 KB."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from mmdata.figures.glyphs import drawable
from mmdata.figures.svg_chart import MAX_BYTES

SCORE_COLOUR, FAINT, INK = "#0072B2", "#8A93A0", "#1F2733"


def sample_grid(images: Sequence[bytes], captions: Sequence[str], scores: Sequence[float | None]) -> bytes:
    """Draw the first samples with caption and score. Where a picture cannot be read, the sheet says so.

    Args:
        images: encoded pictures; the three sequences have the same length.

    Returns:
        A JPEG of less than 20 KB: twelve samples, or eight or six where twelve would not fit readably.
    """
    tiles = list(zip(images, captions, scores, strict=True))
    for count, size in ((12, 112), (12, 96), (8, 108), (8, 92), (6, 92), (6, 72), (6, 52)):
        sheet = _draw_sheet(tiles[:count], size)
        for quality in (84, 70, 56) if size > 52 else (50, 35):
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() < MAX_BYTES:
                return buffer.getvalue()
    raise AssertionError("a 370 x 90 JPEG at quality 35 exceeds 20 KB")


def _draw_sheet(tiles, size: int):  # type: ignore[no-untyped-def]  # Pillow is imported lazily
    from PIL import Image, ImageDraw

    from mmdata.figures.glyphs import font

    columns, gap, text_px = 4 if len(tiles) == 8 else 6, 8, max(9, size // 10)
    letters = font(text_px)
    line = text_px + 3
    cell_height = size + 3 * line + gap
    used = min(columns, max(len(tiles), 3))
    rows = max(1, -(-len(tiles) // columns))
    sheet = Image.new("RGB", (used * (size + gap) + gap, rows * cell_height + gap), "white")
    draw = ImageDraw.Draw(sheet)
    if not tiles:
        draw.text((gap, gap), "no samples", font=letters, fill=FAINT)
    for number, (data, caption, score) in enumerate(tiles):
        left, top = gap + number % columns * (size + gap), gap + number // columns * cell_height
        draw.rectangle((left, top, left + size - 1, top + size - 1), fill="#EEF1F4")
        picture = thumbnail(data, size)
        if picture is None:
            draw.text((left + 6, top + size // 2 - line // 2), "unreadable", font=letters, fill=FAINT)
        else:
            sheet.paste(picture, (left + (size - picture.width) // 2, top + (size - picture.height) // 2))
        shown = "no score" if score is None or not np.isfinite(score) else f"{score:.3f}"
        draw.text((left, top + size + 2), shown, font=letters, fill=SCORE_COLOUR)
        for row, text in enumerate(_wrap(drawable(caption), letters, size, lines=2), start=1):
            draw.text((left, top + size + 2 + row * line), text, font=letters, fill=INK)
    return sheet


def thumbnail(data: bytes, size: int):  # type: ignore[no-untyped-def]  # -> PIL.Image.Image | None
    """Decode a picture to RGB on white, at most `size` pixels a side; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (size * 2, size * 2))
            opened.thumbnail((size, size), Image.Resampling.LANCZOS)
            rgba = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat


def _wrap(text: str, letters, width: int, lines: int) -> list[str]:  # type: ignore[no-untyped-def]
    """Break a text to lines that fit, the last cut with an ellipsis."""
    out: list[str] = []
    text = text[:200]
    while text and len(out) < lines:
        fits = next((n for n in range(len(text), 0, -1) if letters.getlength(text[:n]) <= width), 1)
        if fits == len(text):
            return [*out, text]
        if len(out) == lines - 1:
            cut = next((n for n in range(fits, 0, -1) if letters.getlength(text[:n].rstrip() + "…") <= width), 1)
            return [*out, text[:cut].rstrip() + "…"]
        space = text.rfind(" ", 1, fits + 1)
        end = space if space > 0 else fits
        out.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return out
