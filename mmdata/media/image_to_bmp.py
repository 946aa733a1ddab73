"""Turns unusual images into plain 8-bit BMPs, and large ones into smaller BMPs, for img2dataset's Resizer.

Used by `mmdata.download.images`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mmdata.media.image_header import readable_formats
from mmdata.web.failures import FetchError


def reduced_jpeg(body: bytes, reduction: int) -> bytes:
    """A JPEG as an upright BMP, decoded at 1/reduction of its size: libjpeg scales it in its cosine transform.

    Args:
        reduction: 1, 2, 4 or 8.

    Raises:
        FetchError: `undecodable`.
    """
    import cv2

    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    return cv2.imencode(".bmp", _decoded(body, flags[reduction]))[1].tobytes()


def rgba_on_white(body: bytes) -> bytes:
    """An 8-bit RGBA image as a BMP on white: the values that img2dataset's Resizer computes in floating point.

    Raises:
        FetchError: `undecodable`.
    """
    import cv2

    pixels = _decoded(body, cv2.IMREAD_UNCHANGED)
    colours = pixels[..., :3]
    if pixels.ndim == 3 and pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        alpha = pixels[..., 3:].astype(np.uint16)
        # 255 * 255 + 127 fits 16 bits; rounding never meets a tie, because 255 is odd
        colours = ((colours * alpha + 127) // 255 + (255 - alpha)).astype(np.uint8)
    return cv2.imencode(".bmp", colours)[1].tobytes()


def viewed_as_bmp(body: bytes, reduction: int) -> bytes:
    """Any image as a BMP, as viewers show it: upright, first frame, in RGB, transparency on white.

    Args:
        reduction: each side is divided by it; pixels are averaged.

    Raises:
        FetchError: `undecodable`.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(body), formats=readable_formats()) as image:
            image.seek(0)
            upright: Any = ImageOps.exif_transpose(_with_eight_bits(image))
            if "A" in upright.getbands() or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            upright = upright.convert("RGB")
            if reduction > 1:
                upright = upright.reduce(reduction)
            out = io.BytesIO()
            upright.save(out, "BMP")
            return out.getvalue()
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise anything on hostile bytes
        raise FetchError("undecodable", f"{type(error).__name__}: {error}") from None


def _decoded(body: bytes, flags: int) -> np.ndarray:
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), flags)
    except cv2.error as error:
        raise FetchError("undecodable", str(error)) from None
    if pixels is None:
        raise FetchError("undecodable", "the image cannot be decoded")
    return pixels


def _with_eight_bits(image: Any) -> Any:
    """Grey levels of 16 bits or more as 8 bits; white stays white."""
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    levels = np.asarray(image)
    if image.mode.startswith("F"):
        return Image.fromarray((levels * (1.0 if levels.max() > 1 else 255.0)).clip(0, 255).astype(np.uint8))
    return Image.fromarray((levels.clip(0, 65535) >> 8).astype(np.uint8))
