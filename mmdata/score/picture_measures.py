"""What a picture is like by itself: perceptual hash, sharpness, aspect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PHASH_SIDE = 32
PHASH_FLOOR = 2.0  # of DCT coefficients on 0..255: below lies the rounding of a flat picture, not its content
SHARPNESS_SIDE = 256
THUMB_SIDE = 16
BLACK_LEVEL, BLACK_SHARE = 26, 0.98
FROZEN_LEVELS = 0.3  # mean change of grey levels: noise of the codec, as FFmpeg's freezedetect has it (-60 dB)

_BITS = np.uint64(1) << np.arange(64, dtype=np.uint64)


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 luma, uint8 H,W, of uint8 H,W,3 RGB."""
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def perceptual_hash(grey: np.ndarray) -> int:
    """64-bit DCT hash (Zauner 2010): near-equal pictures differ in few bits, unrelated ones in about 32.

    The whole picture is averaged down to 32 x 32, whatever its aspect; of its DCT the 8 x 8 block of lowest
    frequencies beside row and column 0 is compared with the block's median. Bit k (from the least significant) is
    coefficient (1 + k // 8, 1 + k % 8). Coefficients under 2 count as 0, so that all flat pictures hash to 0.

    Args:
        grey: uint8 H,W.
    """
    import cv2

    small = cv2.resize(grey, (PHASH_SIDE, PHASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    block = cv2.dct(small)[1:9, 1:9].ravel()
    block[np.abs(block) < PHASH_FLOOR] = 0.0
    return int(_BITS[block > np.median(block)].sum(dtype=np.uint64))


def thumb(grey: np.ndarray) -> bytes:
    """The mean of 16 x 16 cells, uint8, row by row."""
    import cv2

    return cv2.resize(grey, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA).tobytes()


def black_ratio(thumbs: Sequence[bytes]) -> float:
    """Share of a clip's frames that are black: 98% of the picture under a tenth of white (FFmpeg's blackframe)."""
    levels = _stacked(thumbs)
    return float(((levels < BLACK_LEVEL).mean(1) >= BLACK_SHARE).mean())


def frozen_ratio(thumbs: Sequence[bytes]) -> float:
    """Share of a clip's frames, from the second on, that show what the one before shows; 0 of a single frame."""
    levels = _stacked(thumbs).astype(np.int16)
    if len(levels) < 2:
        return 0.0
    return float((np.abs(np.diff(levels, axis=0)).mean(1) < FROZEN_LEVELS).mean())


def _stacked(thumbs: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(thumbs), np.uint8).reshape(len(thumbs), -1)


def sharpness(grey: np.ndarray) -> float:
    """Variance of the 3 x 3 Laplacian on grey levels 0..255, with the shorter side brought to 256 pixels first.

    At one scale values compare across sizes: a small picture counts as the blurred large one it would print as.

    Args:
        grey: uint8 H,W.
    """
    import cv2

    height, width = grey.shape
    scale = SHARPNESS_SIDE / min(height, width)
    if scale != 1.0:
        size = (max(1, round(width * min(scale, 32))), max(1, round(height * min(scale, 32))))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0] ** 2)


def hamming(a: int, b: int) -> int:
    """Bits that differ."""
    return (a ^ b).bit_count()


def aspect(width: int, height: int) -> float | None:
    """Longer side over shorter side; None without sides."""
    return max(width, height) / min(width, height) if min(width, height) > 0 else None
