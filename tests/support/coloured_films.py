"""Films of four bars whose colours are coded in a chosen way: matrix, range, transfer and primaries."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BARS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220))
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Of red and blue, by the number of the matrix in ITU-T H.273."""

BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
BT709_TO_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])


def gamma(light: np.ndarray) -> np.ndarray:
    """BT.1886."""
    return light ** (1 / 2.4)


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084 of light in units of 100 nits."""
    power = (light / 100) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """ARIB STD-B67 on a screen of 1,000 nits, of light in units of 100 nits."""
    shown = light / 10
    luminance = shown @ np.array([0.2627, 0.6780, 0.0593])
    scene = shown * luminance[..., None] ** (1 / 1.2 - 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def coloured_film(
    path: Path,
    size: tuple[int, int] = (64, 48),
    matrix: int = 5,
    full_range: bool = False,
    tags: tuple[int, int, int] = (2, 2, 2),
    code: Callable[[np.ndarray], np.ndarray] = gamma,
    to_primaries: np.ndarray | None = None,
    bits: int = 8,
    encoder: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a film of one second.

    Args:
        matrix: what the pixels are coded by; `tags` is what the file says.
        tags: matrix, transfer and primaries; 2 says nothing.
        code: makes coded RGB of linear light; 1 is the white of an ordinary screen.
        to_primaries: linear BT.709 to the linear RGB that is coded.
    """
    light = (np.array(BARS) / 255) ** 2.4
    rgb = code(light if to_primaries is None else light @ to_primaries.T)
    red, blue = LUMA_WEIGHTS[matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = (rgb[:, 2] - luma) / 2 / (1 - blue), (rgb[:, 0] - luma) / 2 / (1 - red)
    unit, most = 1 << (bits - 8), (1 << bits) - 1
    planes = [most * luma if full_range else unit * (16 + 219 * luma)]
    planes += [128 * unit + part * (most if full_range else 224 * unit) for part in chroma]
    width, height = size
    bars = [np.tile(np.repeat(np.round(values), width // len(BARS)), (height, 1)) for values in planes]
    pixel_format = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=5, options={"crf": "1", "preset": "ultrafast", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = tags
        context.color_range = 2 if full_range else 1
        for number in range(5):
            frame = av.VideoFrame(width, height, pixel_format)
            for plane, values in zip(frame.planes, bars, strict=True):
                rows = np.zeros((height, plane.line_size), np.uint8)
                coded = values.astype(np.uint8 if bits == 8 else "<u2").view(np.uint8)
                rows[:, : coded.shape[1]] = coded
                plane.update(rows.tobytes())
            frame.colorspace, frame.color_range = tags[0], 2 if full_range else 1
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def bars_in(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The RGB in the middle of each bar of a picture."""
    height, width = pixels.shape[:2]
    return [tuple(int(value) for value in pixels[height // 2, width * (2 * n + 1) // 8]) for n in range(len(BARS))]
