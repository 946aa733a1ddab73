"""Encodes a clip as a video file (H.264 and AAC in MP4) while its source is decoded. Used by `mmdata.media.clip`."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.media.flac import SAMPLE_RATE, audio_frames

TICKS_PER_S = 90_000
BT709, LIMITED_RANGE = 1, 1  # numbers of ITU-T H.273 for matrix, primaries and transfer, and of FFmpeg for the range
MAX_ROUNDING_PIXELS = 4  # both sides of a film are rounded to even numbers, which is no change of shape
# mbtree=0: x264's macroblock tree gives different bytes on different processors, and sometimes on the same one
# bf=0: with B-frames, MP4 states a wrong length for a film whose last frames are held
CODEC, OPTIONS = "libx264", {"preset": "veryfast", "crf": "23", "threads": "1", "bf": "0", "x264-params": "mbtree=0"}


class ClipVideo:
    """A video file that takes frames one after the other, and the sound at the end. Exact at both bounds.

    Args:
        start_s: where the clip begins in its file.
        image_size: pixels of the shorter side; smaller frames are not enlarged.
    """

    def __init__(self, start_s: float, image_size: int) -> None:
        self._start_s, self._image_size = start_s, image_size
        self._folder = tempfile.TemporaryDirectory(prefix="mmdata-")
        self._path = Path(self._folder.name) / "clip.mp4"
        self._container: Any = None
        self._stream: Any = None
        self._sound: Any = None
        self._last_pts = -1

    def add_picture(self, time_s: float, pixels: np.ndarray) -> None:
        """Add a frame.

        Args:
            time_s: of the frame in the source file.
            pixels: uint8 H,W,3 RGB, upright.
        """
        import av

        if self._container is None:
            self._open(*pixels.shape[:2])
        pts = max(round((time_s - self._start_s) * TICKS_PER_S), self._last_pts + 1)
        self._last_pts = pts
        size = self._stream.width, self._stream.height
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(_padded(pixels, *size)), format="rgb24")
        frame = frame.reformat(*size, "yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
        frame.pts, frame.time_base = pts, Fraction(1, TICKS_PER_S)
        self._container.mux(self._stream.encode(frame))

    def finish(self, wave: np.ndarray | None) -> bytes | None:
        """Close the file and return its bytes; None if it has no frame.

        Args:
            wave: float32 N, the clip's sound at 16 kHz mono; None: no sound.
        """
        try:
            if self._container is None:
                return None
            self._container.mux(self._stream.encode(None))
            if wave is not None:
                for frame in audio_frames(wave.astype(np.float32), "fltp", 1024):
                    self._container.mux(self._sound.encode(frame))
            self._container.mux(self._sound.encode(None))
            self._container.close()
            return self._path.read_bytes()
        finally:
            self._folder.cleanup()

    def _open(self, height: int, width: int) -> None:
        import av

        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(self._path), "w", format="mp4", options=options)
        scale = min(1.0, self._image_size / min(height, width))
        self._stream = self._container.add_stream(CODEC, rate=30, options=OPTIONS)
        self._stream.width, self._stream.height = (max(2, round(side * scale / 2) * 2) for side in (width, height))
        self._stream.pix_fmt, self._stream.time_base = "yuv420p", Fraction(1, TICKS_PER_S)
        context = self._stream.codec_context
        context.time_base = Fraction(1, TICKS_PER_S)
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE)
        self._sound.layout = "mono"


def _padded(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture between black bars if its shape is not that of width x height: a film may change its shape midway."""
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    fitted_height, fitted_width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    bars_x, bars_y = width - fitted_width, height - fitted_height
    if max(bars_x, bars_y) <= MAX_ROUNDING_PIXELS:
        return pixels
    import cv2

    fitted = cv2.resize(pixels, (fitted_width, fitted_height), interpolation=cv2.INTER_AREA)
    return np.pad(fitted, ((bars_y // 2, bars_y - bars_y // 2), (bars_x // 2, bars_x - bars_x // 2), (0, 0)))
