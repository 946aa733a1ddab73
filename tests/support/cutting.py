"""Cuts files that were made for tests, and checks which frames and which sound the clips hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmdata.media.clip import ClipOptions, Cut, CutProblem
from mmdata.media.container import FileFacts
from mmdata.media.cutting import Span, cut_file
from tests.support.made_videos import (
    STORED_RATE,
    likeness,
    make,
    number_in_jpeg,
    place_of,
    wave_in,
)

OPTIONS = ClipOptions(frames=8, choose="uniform", sound=True, keep_video=False, image_size=120, quality=90)


def cut(
    path: Path, spans: list[tuple[float, float] | None], kind: str = "video", **options: Any
) -> tuple[dict[int, Cut | CutProblem], FileFacts]:
    """Cut spans out of a file, each of which must be reported once; None: the whole file."""
    results: dict[int, Cut | CutProblem] = {}

    def on_cut(number: int, result: Cut | CutProblem) -> None:
        assert number not in results
        results[number] = result

    requested = [Span() if span is None else Span(*span) for span in spans]
    facts = cut_file(path, kind, requested, replace(OPTIONS, **options), on_cut)
    assert sorted(results) == list(range(len(spans)))
    return results, facts


def problems(results: dict[int, Cut | CutProblem]) -> list[str]:
    """The problem of each span, in their order; `cut` if there is none."""
    return ["cut" if isinstance(result, Cut) else result.problem for _, result in sorted(results.items())]


@cache
def shown_times(path: Path) -> list[float]:
    """PyAV's timestamps of the frames in the order of their numbers; the file begins at zero."""
    with av.open(str(path)) as container:
        origin = max(0.0, (container.start_time or 0) / av.time_base)
        return [float(frame.pts * frame.time_base) - origin for frame in container.decode(video=0)]


def assert_exact(path: Path, span: tuple[float, float], clip: Cut | CutProblem, first_number: int = 0) -> None:
    """Check by its picture that each stored frame is the one shown at the middle of its share of the clip."""
    assert isinstance(clip, Cut), clip
    times = [-np.inf] * first_number + shown_times(path)
    middles = [span[0] + (place + 0.5) * (span[1] - span[0]) / OPTIONS.frames for place in range(OPTIONS.frames)]
    expected = sorted({max(n for n, time in enumerate(times) if time <= middle + 1e-6) for middle in middles})
    stored = [number_in_jpeg(data) for name, data in clip.members.items() if name.endswith(".jpg")]
    assert stored == expected
    assert clip.times_s == pytest.approx([times[number] for number in stored], abs=1e-3)
    assert clip.duration_s == pytest.approx(span[1] - span[0], abs=1e-3)


def assert_sounds(span: tuple[float, float], clip: Cut | CutProblem, delay_s: float = 0.0, slack: int = 1) -> None:
    """Check that the stored sound is exactly the part of the melody that the clip spans."""
    assert isinstance(clip, Cut), clip
    wave, rate, channels = wave_in(clip.members["flac"])
    assert (rate, channels, len(wave)) == (STORED_RATE, 1, round((span[1] - span[0]) * STORED_RATE))
    assert clip.audio_s == len(wave) / STORED_RATE
    expected = round((span[0] - delay_s) * STORED_RATE)
    settled = wave[STORED_RATE // 10 :]  # a file may begin with its encoder's silence
    place = place_of(settled)
    assert abs(place - STORED_RATE // 10 - expected) <= slack
    assert likeness(settled, place) > 0.9


SPANS = [(0.0, 2.0), (1.013, 3.487), (2.5, 9.99), (3.02, 4.06), (7.777, 11.5)]  # unsorted ends, overlaps, odd bounds


FILES = {
    "h264_b_frames.mp4": {},
    "h264_one_keyframe.mkv": {"gop": 1000},
    "vp9_opus.webm": {"video": "libvpx-vp9", "sound": "libopus"},
    "variable_rate.mkv": {"times_s": [0.04 * n + 0.011 * (n % 3) + 0.9 * (n > 100) for n in range(270)]},
    "variable_rate.mp4": {"times_s": [0.04 * n + 0.011 * (n % 3) + 0.9 * (n > 100) for n in range(270)]},
    "still_pictures.mp4": {"times_s": [0.0, 0.5, 6.0, 6.04, 10.0], "seconds": 12.0},
    "late_start.ts": {"first_s": 3.0},
    "ntsc.mp4": {"times_s": [n * 1001 / 30000 for n in range(360)]},
    "mp3_in.avi": {"video": "mpeg4", "sound": "libmp3lame"},
    "pcm.mov": {"sound": "pcm_s16le"},
}


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Callable[..., Path]:
    """Makes a file of FILES once a session, or another one with what `make` takes."""
    folder = tmp_path_factory.mktemp("videos")

    def made_file(name: str, **changes: Any) -> Path:
        path = folder / name
        return path if path.exists() else make(path, **{**FILES.get(name, {}), **changes})

    return made_file
