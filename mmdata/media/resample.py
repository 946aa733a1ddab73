"""Resamples decoded sound to 16 kHz mono and gives it to the clips that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mmdata.media.clip import ClipBuilder
from mmdata.media.downmix import mono_gains
from mmdata.media.flac import SAMPLE_RATE

MIN_GAP_S = 0.02  # a smaller gap between two frames is rounding, not missing sound
PIECE_SAMPLES = 4_000  # at 16 kHz; few large pieces cost less bookkeeping than many small ones


class SoundResampler:
    """Takes sound frames of any rate and layout, and places them in time.

    Args:
        origin_s: the container's start time.
        channel_names: of the track, in the file's order; they are used if the frames do not name theirs.
    """

    def __init__(self, origin_s: float, channel_names: Sequence[str] = ()) -> None:
        self._origin_s, self._channel_names = origin_s, channel_names
        self._gains = np.ones((1, 1), np.float32)  # of each channel in the mixes
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None  # sample format, layout and rate of the resampler's input
        self._expected_s: float | None = None  # where the next frame begins, if nothing is missing
        self._next_sample: int | None = None  # the sample after the last one given
        self._end_sample = 0  # the furthest sample given

    def give_frame(self, frame: Any, clips: Iterable[ClipBuilder], packet_s: float | None = None) -> float:
        """Give a frame to the clips, in pieces. Returns the time up to which sound was given, in seconds.

        Args:
            frame: None at the end of the sound: the resampler gives what it still holds.
            clips: in the order of their beginnings.
            packet_s: the time of the packet that the frame comes from, for a first frame that has no time.
        """
        import av

        if frame is None:
            self._give(None, clips)
            return self._end_sample / SAMPLE_RATE
        time_s = self._time_s(frame, packet_s)
        format_of_frame = (frame.format.name, frame.layout.name, frame.sample_rate)
        if format_of_frame != self._format or self._expected_s is None or abs(time_s - self._expected_s) > MIN_GAP_S:
            self._give(None, clips)
            self._resampler = av.AudioResampler("flt", None, SAMPLE_RATE, frame_size=PIECE_SAMPLES)
            self._gains = mono_gains(frame, self._channel_names)
            self._format, self._next_sample = format_of_frame, None
        self._expected_s = time_s + frame.samples / frame.sample_rate
        self._give(frame, clips)
        return self._end_sample / SAMPLE_RATE

    def _time_s(self, frame: Any, packet_s: float | None) -> float:
        """Where a frame begins: one without a time follows the frame before it, as the second of a packet of ADPCM."""
        if frame.pts is not None:
            return float(frame.pts * frame.time_base)
        time_s = self._expected_s
        if time_s is None:
            time_s = self._origin_s if packet_s is None else packet_s
        frame.time_base = frame.time_base or Fraction(1, frame.sample_rate)
        frame.pts = round(time_s / frame.time_base)
        return time_s

    def _give(self, frame: Any, clips: Iterable[ClipBuilder]) -> None:
        if self._resampler is None:
            return
        for out in self._resampler.resample(frame):
            mixes = self._gains @ out.to_ndarray().reshape(out.samples, -1).T
            first_sample = round((float(out.pts * out.time_base) - self._origin_s) * SAMPLE_RATE)
            if self._next_sample is not None and abs(first_sample - self._next_sample) < MIN_GAP_S * SAMPLE_RATE:
                first_sample = self._next_sample  # rounding; a clock that runs slow or fast adds up to more
            self._next_sample = first_sample + out.samples
            self._end_sample = max(self._end_sample, self._next_sample)
            for clip in clips:
                if clip.start_s * SAMPLE_RATE > self._next_sample:
                    break
                clip.take_sound(first_sample, mixes)
        if frame is None:
            self._resampler = self._format = None
