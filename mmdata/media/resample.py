"""Decoded sound as 16 kHz mono, given to the clips that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdata.media.clip import Active
from mmdata.media.flac import SAMPLE_RATE

GAP_S = 0.02  # of missing sound that is no rounding
PIECE = 4_000  # samples at 16 kHz that are given to the clips at a time: it saves much bookkeeping


class Sound:
    """Takes frames of any rate and layout, and puts them at their place in time.

    Args:
        origin_s: where the file's time begins.
    """

    def __init__(self, origin_s: float) -> None:
        self._origin_s = origin_s
        self._resampler: Any = None
        self._form: tuple[str, str, int] | None = None  # of the frames that the resampler takes
        self._expected_s = 0.0  # where the next frame begins, if nothing is missing
        self._next: int | None = None  # sample that follows what was given
        self._end = 0

    def take(self, frame: Any, ready: Iterable[Active]) -> float:
        """Give a frame to the clips, in pieces; where the sound has come to, in seconds.

        Args:
            frame: None: there are no more; what the resampler still holds is given.
            ready: in the order of their beginnings.
        """
        import av

        if frame is None:
            self._give(None, ready)
            return self._end / SAMPLE_RATE
        if frame.pts is not None:
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            at_s = float(frame.pts * frame.time_base)
            if form != self._form or abs(at_s - self._expected_s) > GAP_S:
                self._give(None, ready)
                # the mean of the channels is taken by us: the resampler's own mono is louder by 1.4, and clips
                self._resampler = av.AudioResampler("fltp", None, SAMPLE_RATE, frame_size=PIECE)
                self._form, self._next = form, None
            self._expected_s = at_s + frame.samples / frame.sample_rate
            self._give(frame, ready)
        return self._end / SAMPLE_RATE

    def _give(self, frame: Any, ready: Iterable[Active]) -> None:
        if self._resampler is None:
            return
        for out in self._resampler.resample(frame):
            wave = out.to_ndarray().mean(0)
            at = round((float(out.pts * out.time_base) - self._origin_s) * SAMPLE_RATE)
            if self._next is not None and abs(at - self._next) < GAP_S * SAMPLE_RATE:
                at = self._next  # rounding; a clock that runs slow or fast adds up to more
            self._next = at + len(wave)
            self._end = max(self._end, self._next)
            for one in ready:
                if one.start_s * SAMPLE_RATE > self._next:
                    break
                one.take_sound(at, wave)
        if frame is None:
            self._resampler = self._form = None
