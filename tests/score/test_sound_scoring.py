"""Sound in the features stage: measured wherever it is stored."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmdata.media.flac import SAMPLE_RATE, flac
from tests.support.scoring import PartMaker, Sample, clip_sample, encode, photo, score_samples

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


def test_sound_is_measured_wherever_it_is_stored(maker: PartMaker, said: np.ndarray) -> None:
    quiet = np.zeros(3 * SAMPLE_RATE, np.float32)
    seconds = len(said) / SAMPLE_RATE
    speech = {"flac": flac(said)}
    with_sound = clip_sample("wash the apple", [encode(photo(1))], members=speech, media={"audio_s": seconds})
    spoken, silent, seen, broken, text = score_samples(
        maker,
        [
            Sample("wash the apple", kind="audio", members=speech, media={"audio_s": seconds}),
            Sample("nothing", kind="audio", members={"flac": flac(quiet)}, media={"audio_s": 3.0}),
            with_sound,
            Sample("broken", kind="audio", members={"flac": b"fLaC and no more"}, media={"audio_s": 3.0}),
            Sample("words alone", kind="text", media={"status": "success"}),
        ],
    )
    assert -40 < spoken["audio_rms_db"] < -5
    assert spoken["speech_ratio"] > 0.8
    assert spoken["speech_overlap"] == pytest.approx(spoken["speech_ratio"], abs=0.01)
    assert (silent["audio_rms_db"], silent["silence_ratio"], silent["speech_ratio"]) == (-120, 1, 0)
    assert seen["speech_ratio"] == spoken["speech_ratio"]
    assert seen["clip_score"] is not None
    assert spoken["problem"] is silent["problem"] is text["problem"] is None
    assert spoken["embedding"] is None
    assert broken["problem"] == "undecodable_sound"
    assert broken["n_words"] == 1
    assert text["audio_rms_db"] is None
    assert text["n_words"] == 2


def test_speech_is_held_against_the_times_of_the_captions(maker: PartMaker, said: np.ndarray) -> None:
    quiet = np.zeros(len(said), np.float32)
    seconds = len(said) / SAMPLE_RATE
    wave = {"flac": flac(np.concatenate([said, quiet]))}

    def timed(number: int, *spans: tuple[float, float]) -> Sample:
        captions = [[100 + low, 100 + high, "word"] for low, high in spans]
        row = {"start_s": 100.0, "end_s": 100 + 2 * seconds, "extra": json.dumps({"captions": captions})}
        media = {"audio_s": 2 * seconds}
        return Sample(f"words {number}", kind="audio", members=wave, media=media, row=row, url=f"http://e/{number}")

    over, beside, both = score_samples(
        maker, [timed(0, (0.2, seconds - 0.2)), timed(1, (seconds + 0.3, 2 * seconds)), timed(2, (0, 2 * seconds))]
    )
    assert over["speech_overlap"] > 0.9
    assert beside["speech_overlap"] < 0.1
    assert both["speech_overlap"] == pytest.approx(both["speech_ratio"], abs=0.02)
