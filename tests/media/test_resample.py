"""Sound of any rate and layout becomes 16 kHz mono."""

from __future__ import annotations

import av
import numpy as np
import pytest

from mmdata.media import cutting
from mmdata.media.clip import Cut
from tests.support.cutting import assert_sounds, cut
from tests.support.made_videos import (
    RATE,
    STORED_RATE,
    wave_in,
)


def test_a_loud_stereo_track_is_mixed_down_without_clipping(tmp_path):
    path = tmp_path / "loud.wav"
    wave = np.sin(np.arange(RATE * 2) * 2 * np.pi * 440 / RATE).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE)
        stream.layout = "stereo"
        both = np.round(np.stack([wave, wave], 1).reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    results, _ = cut(path, [(0.5, 1.5)], kind="audio")
    assert isinstance(results[0], Cut)
    stored, _, _ = wave_in(results[0].members["flac"])
    times = np.arange(len(stored)) / STORED_RATE + 0.5
    assert np.abs(stored - np.sin(times * 2 * np.pi * 440)).max() < 0.01


@pytest.mark.parametrize("name", ["adpcm_ms.wav", "adpcm_ima_wav.wav", "adpcm_ms.w64", "wmav2.wav"])
def test_frames_without_a_time_follow_the_frame_before_them(made, monkeypatch, name):
    """A packet may hold several frames, and only the first of them has a time: no stretch of sound is missing."""
    monkeypatch.setattr(cutting, "SEEK_GAP_S", 2.0)
    codec = name.split(".")[0]
    path = made(name, video=None, sound=codec)
    results, _ = cut(path, [None, (2.5, 4.25), (9.0, 11.0)], kind="audio")
    delay_s, slack = (0.0426, 800) if codec == "wmav2" else (0.0, 2)  # WAV does not say how WMA begins
    for number, start_s, seconds in ((0, 0.0, 12.0), (1, 2.5, 1.75), (2, 9.0, 2.0)):
        clip = results[number]
        assert isinstance(clip, Cut), clip
        assert clip.audio_s == pytest.approx(seconds, abs=0.04)
        stored, _, _ = wave_in(clip.members["flac"])
        blocks = stored[1600 : len(stored) // 160 * 160 - 800].reshape(-1, 160)
        assert np.abs(blocks).max(1).min() > 0  # no 10 ms are silent
        assert_sounds((start_s, start_s + clip.audio_s), clip, delay_s, slack)
