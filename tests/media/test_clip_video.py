"""The video file of a clip."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from mmdata.media.clip import Cut
from mmdata.media.clip_video import ClipVideo
from tests.support.cutting import cut
from tests.support.made_videos import (
    STORED_RATE,
    number_in,
    place_of,
    wave_in,
)


def test_a_clips_video_has_exactly_its_frames_and_its_sound(made):
    results, _ = cut(made("h264_b_frames.mp4"), [(2.0, 5.0)], frames=2, keep_video=True)
    clip = results[0]
    assert isinstance(clip, Cut)
    assert list(clip.members) == ["000.jpg", "001.jpg", "flac", "mp4"]
    with av.open(io.BytesIO(clip.members["mp4"])) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        seen = [(frame.time, number_in(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video)]
        assert [number for _, number in seen] == list(range(50, 125))
        assert float(sound.duration * sound.time_base) == pytest.approx(3.0, abs=1e-3)
        assert [time for time, _ in seen] == pytest.approx([n * 0.04 for n in range(75)], abs=1e-3)
    wave, rate, _ = wave_in(clip.members["mp4"])
    assert rate == STORED_RATE
    assert 0 <= len(wave) - 3 * STORED_RATE < 1024  # what the codec's last block is filled up with; nobody hears it
    assert abs(place_of(wave) - 2 * STORED_RATE) <= 1


def test_a_film_that_changes_its_shape_keeps_its_proportions():
    video = ClipVideo(0.0, 64)
    video.add_picture(0.0, np.full((64, 96, 3), 200, np.uint8))
    video.add_picture(0.1, np.full((96, 64, 3), 200, np.uint8))  # somebody turned the phone
    video.add_picture(0.2, np.full((64, 95, 3), 200, np.uint8))  # rounding
    data = video.finish(None)
    assert data is not None
    with av.open(io.BytesIO(data)) as container:
        wide, tall, rounded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    assert wide.shape == tall.shape == (64, 96, 3)
    assert np.abs(wide.astype(int) - 200).max() < 12
    assert np.abs(rounded.astype(int) - 200).max() < 12
    bright = np.flatnonzero(tall[32, :, 0] > 100)  # the picture is 43 pixels wide, between two bars
    assert (len(bright), bright[0]) == (pytest.approx(43, abs=3), pytest.approx(27, abs=3))
    assert tall[:, :22].max() < 12
