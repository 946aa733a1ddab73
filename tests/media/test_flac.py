"""Sound as FLAC."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mmdata.media.flac import SAMPLE_RATE, flac


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].sample_rate


def test_flac_holds_the_samples_and_is_the_same_again() -> None:
    wave = np.random.default_rng(0).uniform(-1.2, 1.2, 20_001).astype(np.float32)
    data = flac(wave)
    assert data == flac(wave)
    samples, rate = decoded(data)
    assert rate == SAMPLE_RATE
    assert np.array_equal(samples, np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16))
