"""Decoded frames as RGB: which matrix and range they are coded in, what is transparent, and what is converted.

Numbers of matrices, transfers and primaries are those of ITU-T H.273.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from mmdata.media.side_data import side_data
from mmdata.media.tone_mapping import BT2020, HLG, PEAK_NITS, PQ, needs_conversion, to_bt709

BT709_MATRIX, BT601_MATRIX, BT2020_MATRIX = 1, 5, 9
KNOWN_MATRICES = {1: BT709_MATRIX, 4: 4, 5: BT601_MATRIX, 6: BT601_MATRIX, 7: 7, 9: BT2020_MATRIX}
SILENT_MATRICES = (0, 2, 3)
"""RGB, unspecified and reserved: none of them says how brightness and colour differences were made."""

MATRIX_OF_PRIMARIES = {1: BT709_MATRIX, 5: BT601_MATRIX, 6: BT601_MATRIX, 7: 7, 9: BT2020_MATRIX}
DERIVED_MATRIX = 12

DOLBY_TAGS = frozenset({"dvh1", "dvhe", "dav1", "dva1", "dvav"})
LIMITED_RANGE = 1
UNSPECIFIED = 2


def colour_problem(frame: Any, codec_tag: str = "") -> str | None:
    """Why the colours of a decoded frame cannot be told; None if they can.

    Args:
        codec_tag: of its track.
    """
    if _is_yuv(frame) and _matrix(frame) is None:
        return f"the film's colours are coded by matrix {frame.colorspace} of ITU-T H.273, which is not converted"
    is_dolby = codec_tag in DOLBY_TAGS or any(side_data(frame, name) for name in ("DOVI_METADATA", "DOVI_RPU_BUFFER"))
    if is_dolby and frame.colorspace == frame.color_trc == UNSPECIFIED:
        return "the film is Dolby Vision without a base layer that others can show (profile 5)"
    return None


def rgb_pixels(frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """A decoded frame as an ordinary screen shows it: uint8 H,W,3 RGB of BT.709, not yet upright.

    HDR and wide-gamut pictures are converted (see `mmdata.media.tone_mapping`); what is transparent lies on white.

    Args:
        size: width and height to reduce it to; None: its own.
    """
    transfer, primaries = _transfer_and_primaries(frame)
    if needs_conversion(transfer, primaries):
        codes = reformatted(frame, "rgb48le", size, "AREA")
        return to_bt709(codes, transfer, primaries, _peak_nits(frame))
    if frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
        return _resized(_on_white(reformatted(frame, "rgba")), size)
    pixels = _resized(reformatted(frame, "rgb24"), size)
    if frame.format.name.startswith("gray") and frame.color_range == LIMITED_RANGE:  # FFmpeg takes it for full range
        pixels = np.clip((pixels.astype(np.float32) - 16) * (255 / 219) + 0.5, 0, 255).astype(np.uint8)
    return pixels


def reduced_rgb(frame: Any, width: int, height: int) -> np.ndarray:
    """A decoded frame as a small uint8 H,W,3 for comparisons with others of its film; HDR stays as it is coded."""
    return reformatted(frame, "rgb24", (width, height))


def reformatted(
    frame: Any, pixel_format: str, size: tuple[int, int] | None = None, interpolation: str = "BILINEAR"
) -> np.ndarray:
    """A decoded frame in another pixel format and size, with the matrix that its colours are coded by."""
    # a matrix means nothing for RGB and grey, but swscale refuses one that it does not know
    matrix = (_matrix(frame) if _is_yuv(frame) else None) or BT709_MATRIX
    converted = frame.reformat(
        *(size or (frame.width, frame.height)),
        pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        interpolation=interpolation,
        threads=1,  # each core has a decoder process of its own
    )
    return np.asarray(converted.to_ndarray())


def _resized(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or size == pixels.shape[1::-1]:
        return pixels
    import cv2

    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255 + (255 - alpha)).astype(np.uint8)


def _is_yuv(frame: Any) -> bool:
    pixel_format = frame.format
    return not (pixel_format.is_rgb or pixel_format.name.startswith(("gray", "ya", "mono", "pal", "xyz")))


def _matrix(frame: Any) -> int | None:
    """The matrix that makes RGB of a frame, as swscale numbers it; None if it has none.

    What is not said is guessed as players do: HDR is BT.2020, HD is BT.709, and smaller pictures are BT.601.
    """
    if frame.colorspace == DERIVED_MATRIX:
        return MATRIX_OF_PRIMARIES.get(frame.color_primaries)
    if frame.colorspace not in SILENT_MATRICES:
        return KNOWN_MATRICES.get(frame.colorspace)
    if frame.color_primaries == BT2020 or frame.color_trc in (PQ, HLG):
        return BT2020_MATRIX
    return BT709_MATRIX if frame.width >= 1280 or frame.height > 576 else BT601_MATRIX


def _transfer_and_primaries(frame: Any) -> tuple[int, int]:
    transfer, primaries = frame.color_trc, frame.color_primaries
    if primaries in (0, UNSPECIFIED, 3) and (transfer in (PQ, HLG) or frame.colorspace == BT2020_MATRIX):
        primaries = BT2020
    return transfer, primaries


def _peak_nits(frame: Any) -> float:
    """The brightest light of a film by its own account (CTA-861.3, then SMPTE ST 2086)."""
    if (data := side_data(frame, "CONTENT_LIGHT_LEVEL")) is not None:
        (max_light,) = struct.unpack_from("=I", data)
        if max_light:
            return float(max_light)
    if (data := side_data(frame, "MASTERING_DISPLAY_METADATA")) is not None:
        numerator, denominator, _, has_light = struct.unpack_from("=iiii", data, 72)
        if has_light and numerator > 0 and denominator > 0:
            return numerator / denominator
    return PEAK_NITS
