"""Measures of a picture or of a clip's frames: perceptual hash, sharpness, aspect, black and frozen frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PHASH_SIDE_PX = 32
PHASH_MIN_COEFFICIENT = 2.0  # on grey levels 0..255; smaller DCT coefficients are rounding errors of flat pictures
SHARPNESS_SIDE_PX = 256
SHARPNESS_MAX_SCALE = 32  # a picture of a few pixels is not enlarged further
THUMBNAIL_SIDE_PX = 16
BLACK_MAX_LEVEL = 26  # a tenth of white
BLACK_FRAME_MIN_SHARE = 0.98  # of a frame's pixels that are black, as in FFmpeg's blackframe
FROZEN_MAX_CHANGE = 0.3  # mean change of grey levels that codec noise causes: -60 dB, as in FFmpeg's freezedetect

_BIT_VALUES = np.uint64(1) << np.arange(64, dtype=np.uint64)


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    """Grey levels (ITU-R BT.601 luma), uint8 H,W, of pixels, uint8 H,W,3 RGB."""
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def perceptual_hash(grey: np.ndarray) -> int:
    """64-bit DCT hash (Zauner 2010): nearly equal pictures differ in few bits, unrelated ones in about 32.

    The whole picture is averaged down to 32 x 32, whatever its aspect. The hash compares the 8 x 8 block of lowest
    DCT frequencies, without row 0 and column 0, with the median of the block. Bit k (0 is the least significant) is
    coefficient (1 + k // 8, 1 + k % 8). Coefficients under 2 count as 0, so that all flat pictures hash to 0.
    """
    import cv2

    small = cv2.resize(grey, (PHASH_SIDE_PX, PHASH_SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    block = cv2.dct(small)[1:9, 1:9].ravel()
    block[np.abs(block) < PHASH_MIN_COEFFICIENT] = 0.0
    return int(_BIT_VALUES[block > np.median(block)].sum(dtype=np.uint64))


def thumbnail(grey: np.ndarray) -> bytes:
    """The mean grey level of each of 16 x 16 cells, uint8, row by row."""
    import cv2

    return cv2.resize(grey, (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), interpolation=cv2.INTER_AREA).tobytes()


def black_ratio(thumbnails: Sequence[bytes]) -> float:
    """Share of a clip's frames that are black: 98% of the frame is darker than a tenth of white."""
    levels = _stack(thumbnails)
    return float(((levels < BLACK_MAX_LEVEL).mean(1) >= BLACK_FRAME_MIN_SHARE).mean())


def frozen_ratio(thumbnails: Sequence[bytes]) -> float:
    """Share of a clip's frames, from the second on, that look like the frame before; 0 for a single frame."""
    levels = _stack(thumbnails).astype(np.int16)
    if len(levels) < 2:
        return 0.0
    return float((np.abs(np.diff(levels, axis=0)).mean(1) < FROZEN_MAX_CHANGE).mean())


def _stack(thumbnails: Sequence[bytes]) -> np.ndarray:
    """uint8 (frames, cells)."""
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), -1)


def sharpness(grey: np.ndarray) -> float:
    """Variance of the 3 x 3 Laplacian on grey levels 0..255, after the shorter side was resized to 256 pixels.

    With one scale for all, values of pictures of different size compare: a small picture is as sharp as it looks
    when it is enlarged.
    """
    import cv2

    height, width = grey.shape
    scale = SHARPNESS_SIDE_PX / min(height, width)
    if scale != 1.0:
        limited = min(scale, SHARPNESS_MAX_SCALE)
        size = (max(1, round(width * limited)), max(1, round(height * limited)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0] ** 2)


def aspect(width: int, height: int) -> float | None:
    """Longer side divided by shorter side; None where a side is 0."""
    return max(width, height) / min(width, height) if min(width, height) > 0 else None
