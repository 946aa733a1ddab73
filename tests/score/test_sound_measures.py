"""Measures of sound, on waves whose loudness and silence are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.score.sound_measures import caption_spans, decode_sound, loudness_db, silence_ratio, speech_overlap

pytest.importorskip("av", reason="mmdata[video] is not installed")


def tone(seconds: float, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2)).astype(np.float32)


def test_loudness_is_in_db_of_full_scale() -> None:
    assert loudness_db(np.ones(100, np.float32)) == pytest.approx(0)
    assert loudness_db(tone(1, 0.5)) - loudness_db(tone(1, 0.05)) == pytest.approx(20, abs=0.01)
    assert loudness_db(np.zeros(100, np.float32)) == -120


def test_silence_is_a_share_of_windows() -> None:
    wave = np.concatenate([tone(3), np.zeros(SAMPLE_RATE, np.float32)])
    assert silence_ratio(wave) == pytest.approx(0.25, abs=0.02)
    assert silence_ratio(np.zeros(10, np.float32)) == 1


def test_a_stored_sound_is_decoded_as_it_was() -> None:
    wave = tone(1)
    assert np.abs(decode_sound(flac(wave)) - wave).max() < 1e-4
    for broken in (b"", b"fLaC and no more", flac(wave)[:40]):
        with pytest.raises(ValueError, match=r"undecodable|empty"):
            decode_sound(broken)


def test_overlap_is_a_share_of_the_captioned_time() -> None:
    assert speech_overlap([(0, 2), (4, 6)], [(1, 5)]) == 0.5
    assert speech_overlap([(0, 2)], []) == 0
    assert speech_overlap([], [(0, 1)]) == 0


def test_captions_are_timed_by_the_clip_and_cut_at_its_ends() -> None:
    row = {"caption": "words", "start_s": 10.0, "audio_s": 4.0, "extra": None}
    assert caption_spans(row) == [(0, 4)]
    timed = [[9, 11, "a"], [12, 13, "b"], [15, 16, "after the end"], ["no span"]]
    assert caption_spans(row | {"extra": json.dumps({"captions": timed})}) == [(0, 1), (2, 3)]
    for extra in ("[]", '{"captions": [["a", null, "b"], [true, 1e999, 2]]}', "[" * 5_000 + "]" * 5_000, "{nonsense"):
        assert caption_spans(row | {"extra": extra}) == [(0, 4)]
    assert caption_spans(row | {"caption": None}) is None
