"""Sound of any rate and layout becomes 16 kHz mono."""

from __future__ import annotations

import av
import numpy as np

from mmdata.media.clip import Cut
from tests.support.cutting import cut
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
