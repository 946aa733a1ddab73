"""Speech is found as silero's own code finds it, and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from mmdata.media.voice_activity import SAMPLE_RATE, speech_probabilities, speech_ratio, speech_spans

pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")
silero = pytest.importorskip("silero_vad", reason="mmdata[video] is not installed")


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    pytest.importorskip("espeakng_loader")
    from mmdata.media.espeak import Speaker

    with Speaker() as speaker:
        parts = [speaker.say(text) for text in ("wash the green apple with cold water", "then put it into the bowl")]
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([quiet, parts[0], quiet, parts[1], quiet])


def test_sentences_are_separated(said: np.ndarray) -> None:
    first, second = speech_spans(said)
    assert abs(first[0] - 1.0) < 0.2
    assert 0.7 < second[0] - first[1] < 1.5
    assert abs(second[1] - (len(said) / SAMPLE_RATE - 1.0)) < 0.4
    assert speech_ratio(said) == pytest.approx((first[1] - first[0] + second[1] - second[0]) * SAMPLE_RATE / len(said))


def same_as_silero(samples: np.ndarray) -> None:
    import torch

    model = silero.load_silero_vad(onnx=True)
    theirs = silero.get_speech_timestamps(torch.from_numpy(samples), model)
    ours = speech_spans(samples)
    assert len(ours) == len(theirs)
    for (start, end), span in zip(ours, theirs, strict=True):
        assert abs(start * SAMPLE_RATE - span["start"]) <= 1024
        assert abs(end * SAMPLE_RATE - span["end"]) <= 1024


def test_spans_are_those_of_the_package_itself(said: np.ndarray) -> None:
    same_as_silero(said)
    same_as_silero(said[: len(said) // 2])


def test_long_sounds_are_read_in_pieces_that_leave_no_seam(said: np.ndarray) -> None:
    long = np.tile(said, 5)
    assert len(long) > 520 * 512
    same_as_silero(long)


def test_silence_noise_and_tones_are_no_speech() -> None:
    times = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * f * times) for f in (220, 277, 330)) / 6
    noise = np.random.default_rng(0).normal(0, 0.1, len(times))
    for samples in (np.zeros(len(times)), noise, chord):
        assert speech_ratio(samples.astype(np.float32)) == 0


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513])
def test_short_sounds_have_a_probability_a_window(count: int) -> None:
    assert len(speech_probabilities(np.zeros(count, np.float32))) == -(-count // 512)


def test_real_narrations_are_speech(real_corpus: Path) -> None:
    av = pytest.importorskip("av")
    paths = sorted((real_corpus / "audio").glob("*.ogg"))[:12]
    ratios = []
    for path in paths:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        with av.open(io.BytesIO(path.read_bytes())) as container:
            pieces = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        ratios.append(speech_ratio(np.concatenate(pieces)))
    assert np.median(ratios) > 0.5
    assert min(ratios) > 0.2
