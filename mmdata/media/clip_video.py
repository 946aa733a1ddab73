"""A clip as a video of its own: H.264 and AAC in MP4, encoded while the file is decoded."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.media.flac import SAMPLE_RATE

TICKS = 90_000  # of the time base, a second
# x264's macroblock tree is the one part of it that gives other bytes on another processor, and now and then on the same
CODEC, OPTIONS = "libx264", {"preset": "veryfast", "crf": "23", "threads": "1", "x264-params": "mbtree=0"}


class ClipVideo:
    """Frames come in one after the other, the sound at the end; exact at both bounds.

    Args:
        start_s: where the clip begins in its file.
        image_size: pixels of the shorter side; never enlarged.
    """

    def __init__(self, start_s: float, image_size: int) -> None:
        self._start_s, self._image_size = start_s, image_size
        self._folder = tempfile.TemporaryDirectory(prefix="mmdata-")
        self._path = Path(self._folder.name) / "clip.mp4"
        self._container: Any = None
        self._stream: Any = None
        self._sound: Any = None
        self._last = -1

    def add_picture(self, at: float, pixels: np.ndarray) -> None:
        """Add a frame.

        Args:
            at: in the file, in seconds.
            pixels: uint8 H,W,3 RGB, upright.
        """
        import av

        if self._container is None:
            self._open(*pixels.shape[:2])
        pts = max(round((at - self._start_s) * TICKS), self._last + 1)
        self._last = pts
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(width=self._stream.width, height=self._stream.height, format="yuv420p")
        frame.pts, frame.time_base = pts, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def finish(self, wave: np.ndarray | None) -> bytes | None:
        """The file's bytes; None where no frame came.

        Args:
            wave: the clip's sound, float32, 16 kHz mono.
        """
        import av

        try:
            if self._container is None:
                return None
            self._container.mux(self._stream.encode(None))
            if wave is not None:
                for start in range(0, len(wave), 1024):
                    piece = np.ascontiguousarray(wave[None, start : start + 1024], np.float32)
                    frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
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
        self._stream.pix_fmt, self._stream.time_base = "yuv420p", Fraction(1, TICKS)
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE)
        self._sound.layout = "mono"
