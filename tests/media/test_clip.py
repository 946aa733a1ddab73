"""What one clip stores: its frames by time or by scene, and its sound."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from mmdata.media.clip import Cut
from tests.support.cutting import assert_exact, cut, problems
from tests.support.made_videos import (
    CLOCK,
)


def test_no_sound_track_stores_no_sound(made):
    results, _ = cut(made("mute.mp4", sound=None), [(1.0, 3.0)])
    assert isinstance(results[0], Cut)
    assert (results[0].audio_s, "flac" in results[0].members) == (None, False)
    assert_exact(made("mute.mp4"), (1.0, 3.0), results[0])


def test_a_clip_past_the_end_is_shortened_if_enough_of_it_is_left(made):
    path = made("h264_b_frames.mp4")
    results, _ = cut(path, [(10.0, 14.0), (11.5, 14.0), (11.6, 12.4), (12.0, 15.0), (90.0, 95.0)])
    assert problems(results) == ["cut", "past_end", "cut", "past_end", "past_end"]
    short = results[0]
    assert isinstance(short, Cut)
    assert short.duration_s == pytest.approx(2.0, abs=0.04)
    assert short.audio_s == pytest.approx(short.duration_s, abs=0.001)
    assert all(10.0 <= at < 12.0 for at in short.times_s)


def test_scenes_give_a_frame_after_each_change_and_even_ones_between(tmp_path):
    path = tmp_path / "scenes.mp4"
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        for number in range(225):
            pixels = np.full((120, 160, 3), colours[number // 60 % 3], np.uint8)
            pixels[:, : 1 + number % 60] //= 2
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number * CLOCK // 25, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    results, _ = cut(path, [(0.4, 8.4)], frames=6, choose="scene")
    clip = results[0]
    assert isinstance(clip, Cut)
    assert len(clip.times_s) == 6
    assert {2.4, 4.8, 7.2} <= {round(at, 2) for at in clip.times_s}
    assert clip.times_s == sorted(clip.times_s)
