"""Channels are mixed as FFmpeg's `-ac 1` mixes them, and sound that would cancel out is kept."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmdata.media.clip import Cut
from tests.support.cutting import cut

RATE = 16_000
HZ = 100  # channel n carries a tone of (n + 3) times so much
TIMES_S = np.arange(2 * RATE) / RATE


def _tones(count: int) -> np.ndarray:
    return np.stack([0.5 * np.sin(2 * np.pi * HZ * (number + 3) * TIMES_S) for number in range(count)])


def _file(
    path: Path, channels: np.ndarray, layout: str, codec: str = "pcm_s16le", step: int = 1024, **options: str
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000 if codec == "ac3" else RATE, options=options)
        stream.layout = layout
        resampler = av.AudioResampler(stream.format, layout, stream.rate, frame_size=stream.codec_context.frame_size)
        for start in range(0, channels.shape[1], step):
            part = np.ascontiguousarray(channels[:, start : start + step].T.reshape(1, -1).astype(np.float32))
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            for ready in resampler.resample(frame):
                container.mux(stream.encode(ready))
        container.mux(stream.encode())
    return path


def _stored(path: Path, span: tuple[float, float] | None = None) -> np.ndarray:
    results, _ = cut(path, [span], kind="audio")
    clip = results[0]
    assert isinstance(clip, Cut), clip
    with av.open(io.BytesIO(clip.members["flac"])) as container:
        frames: list[Any] = list(container.decode(audio=0))
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]) / 2**15


def _gains(path: Path, count: int) -> list[float]:
    """How much of each channel's tone is in the stored sound."""
    wave = _stored(path, (0.5, 1.5))
    spectrum = 2 * np.abs(np.fft.rfft(wave)) / len(wave)
    return [float(spectrum[HZ * (number + 3)]) / 0.5 for number in range(count)]


@pytest.mark.parametrize(
    ("layout", "gains"),
    [
        ("mono", [1]),
        ("stereo", [0.5, 0.5]),  # sound in one channel only keeps half of its level
        ("2.1", [0.5, 0.5, 0]),
        ("quad", [0.2929, 0.2929, 0.2071, 0.2071]),
        ("5.1", [0.2071, 0.2071, 0.2929, 0, 0.1464, 0.1464]),
        ("6.1", [0.1807, 0.1807, 0.2555, 0, 0.1277, 0.1277, 0.1277]),
        ("7.1", [0.1602, 0.1602, 0.2265, 0, 0.1133, 0.1133, 0.1133, 0.1133]),
        ("7.1.4", [0.1213, 0.1213, 0.1716, 0, 0.0858, 0.0858, 0.0858, 0.0858, 0.1213, 0.1213, 0, 0]),
    ],
)
def test_channels_are_mixed_as_ffmpeg_does(tmp_path, layout, gains):
    path = _file(tmp_path / "sound.wav", _tones(len(gains)), layout)
    assert _gains(path, len(gains)) == pytest.approx(gains, abs=2e-3)


def test_channels_without_names_are_those_of_the_usual_layout(tmp_path):
    path = _file(tmp_path / "sound.wav", _tones(6), "5.1")
    data = path.read_bytes()
    mask = data.index(struct.pack("<I", 0x3F), 20)  # the six channels of WAVEFORMATEXTENSIBLE
    path.write_bytes(data[:mask] + bytes(4) + data[mask + 4 :])
    with av.open(str(path)) as container:
        assert container.streams.audio[0].layout.name == "6 channels"
    assert _gains(path, 6) == pytest.approx([0.2071, 0.2071, 0.2929, 0, 0.1464, 0.1464], abs=2e-3)


def test_channels_in_a_files_own_order_are_mixed_by_name(tmp_path):
    """QuickTime's left, right, left surround, right surround, centre, bass: PyAV crashes when it decodes that."""
    path = _file(tmp_path / "sound.mov", _tones(6), "5.1")
    data = path.read_bytes()
    tag = data.index(b"chan") + 8
    mpeg_5_1_b = struct.pack(">III", 122 << 16 | 6, 0, 0)
    path.write_bytes(data[:tag] + mpeg_5_1_b + data[tag + 12 :])
    assert _gains(path, 6) == pytest.approx([0.2071, 0.2071, 0.1464, 0.1464, 0.2929, 0], abs=2e-3)


def test_ac3_says_how_loud_its_centre_is(tmp_path):
    path = _file(tmp_path / "sound.mkv", _tones(6), "5.1(side)", "ac3", center_mixlev="0.5", surround_mixlev="0.5")
    front = 0.5**0.5
    loud = np.array([front, front, 0.5 * 2**0.5, 0, 0.5 * front, 0.5 * front])
    assert _gains(path, 6) == pytest.approx(list(loud / loud.sum()), abs=4e-3)


@pytest.mark.parametrize("step", [1024, 1111])
def test_two_sides_of_opposite_polarity_do_not_cancel_out(tmp_path, step):
    left = _tones(1)[0]
    path = _file(tmp_path / "sound.wav", np.stack([left, -left]), "stereo", step=step)
    for span in (None, (0.25, 1.75)):
        begin = 0 if span is None else round(span[0] * RATE)
        stored = _stored(path, span)
        assert np.abs(stored - left[begin : begin + len(stored)]).max() < 1e-3
    almost = _file(tmp_path / "almost.wav", np.stack([left, -0.9 * left]), "stereo", step=step)
    assert np.abs(_stored(almost) - 0.95 * left).max() < 1e-3
    flipped = np.where(np.arange(len(left)) < RATE, left, -left)
    half = _file(tmp_path / "half.wav", np.stack([left, flipped]), "stereo", step=step)
    assert np.abs(_stored(half) - left).max() < 1e-3  # the second second is as loud as the first
    surround = np.stack([left, -left, 0 * left, 0 * left, left, -left])
    assert np.abs(_stored(_file(tmp_path / "5.1.wav", surround, "5.1"))).max() > 0.3


def test_sound_that_differs_from_side_to_side_keeps_ffmpegs_mix(tmp_path):
    left, right = _tones(2)
    for name, other in (("wide", right), ("one_sided", 0 * left), ("half", -0.5 * left)):
        path = _file(tmp_path / f"{name}.wav", np.stack([left, other]), "stereo")
        assert np.abs(_stored(path) - (left + other) / 2).max() < 1e-3
