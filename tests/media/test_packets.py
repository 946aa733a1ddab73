"""Files whose times wrap around, start over or leap: pictures and sound stay where they are seen and heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmdata.media.clip import Cut, CutProblem
from tests.support.cutting import assert_exact, assert_sounds, cut, problems
from tests.support.made_videos import STORED_RATE, number_in_jpeg, place_of, wave_in
from tests.support.remuxed import remux

WRAP_S = 2**33 / 90_000


def numbers(clip: Cut | CutProblem) -> list[int]:
    assert isinstance(clip, Cut), clip
    return [number_in_jpeg(data) for name, data in clip.members.items() if name.endswith(".jpg")]


def heard_at_s(clip: Cut | CutProblem) -> float:
    """Where in the melody the sound of a clip begins."""
    assert isinstance(clip, Cut), clip
    wave, _, _ = wave_in(clip.members["flac"])
    return (place_of(wave[STORED_RATE // 10 :]) - STORED_RATE // 10) / STORED_RATE


def concatenated(paths: list[Path], target: Path) -> Path:
    target.write_bytes(b"".join(path.read_bytes() for path in paths))
    return target


@pytest.mark.parametrize("before_s", [2.0, 100.0])
@pytest.mark.parametrize("extension", ["ts", "mpg"])
def test_a_clock_that_wraps_around_moves_nothing(made, extension, before_s):
    codecs = {"video": "mpeg2video", "sound": "mp2"} if extension == "mpg" else {}
    straight = made(f"straight.{extension}", first_s=3.0, **codecs)
    path = made(f"wrap_{before_s}.{extension}", first_s=WRAP_S - before_s, **codecs)
    spans = [None, (0.5, 1.5), (1.0, 3.5), (8.0, 11.0)]
    expected, facts = cut(straight, spans)
    results, wrapped_facts = cut(path, spans)
    assert wrapped_facts.duration_s == pytest.approx(facts.duration_s, abs=0.01)
    for number in range(len(spans)):
        assert numbers(results[number]) == pytest.approx(numbers(expected[number]), abs=1)
        assert heard_at_s(results[number]) == pytest.approx(heard_at_s(expected[number]), abs=0.001)


@pytest.mark.parametrize(
    ("extension", "second_s", "codecs"),
    [
        ("ts", 0.0, {}),
        ("ts", 1000.0, {}),
        ("mpg", 0.0, {"video": "mpeg2video", "sound": "mp2"}),
        ("mkv", 0.0, {}),
        ("webm", 0.0, {"video": "libvpx-vp9", "sound": "libopus"}),
    ],
)
def test_joined_files_are_shown_one_after_the_other(made, tmp_path, extension, second_s, codecs):
    first = made(f"piece.{extension}", seconds=8.0, **codecs)
    second = made(f"piece_{second_s}.{extension}", seconds=8.0, first_s=second_s, **codecs) if second_s else first
    path = concatenated([first, second], tmp_path / f"joined.{extension}")
    results, facts = cut(path, [None, (1.0, 3.0), (7.0, 9.0), (11.0, 13.0), (500.0, 504.0)])
    assert facts.duration_s == pytest.approx(16.0, abs=0.1)
    assert problems(results) == ["cut"] * 4 + ["past_end"]
    for number, start_s in ((0, 0.0), (1, 1.0), (2, 7.0), (3, 11.0)):
        clip = results[number]
        assert isinstance(clip, Cut)
        for at_s, frame in zip(clip.times_s, numbers(clip), strict=True):
            assert at_s % 8.0 == pytest.approx(frame / 25, abs=0.1)
        assert heard_at_s(clip) == pytest.approx(start_s % 8.0, abs=0.1)
    assert numbers(results[0])[4:] == pytest.approx(numbers(results[0])[:4], abs=2)


@pytest.mark.parametrize("name", ["libopus.ogg", "flac.flac"])
def test_chained_sound_is_heard_to_its_end(made, tmp_path, name):
    codec, extension = name.split(".")
    piece = made(f"chain_{name}", video=None, sound=codec, seconds=8.0)
    path = concatenated([piece] * 3, tmp_path / f"chained.{extension}")
    results, facts = cut(path, [None, (1.0, 3.0), (9.5, 11.5), (17.5, 20.0)], kind="audio")
    assert facts.duration_s == pytest.approx(24.0, abs=0.15)
    whole = results[0]
    assert isinstance(whole, Cut)
    wave, _, _ = wave_in(whole.members["flac"])
    blocks = wave[: len(wave) // 1600 * 1600].reshape(-1, 1600)
    assert np.abs(blocks).max(1).min() > 0  # no 100 ms are silent
    for number, start_s in ((0, 0.0), (1, 1.0), (2, 1.5), (3, 1.5)):
        assert heard_at_s(results[number]) == pytest.approx(start_s, abs=0.11)


def test_a_chain_that_ffmpeg_cannot_follow_is_no_whole_recording(made, tmp_path):
    """Opus, then FLAC, in one Ogg file: what can be read is cut, but the transcript of the whole does not fit it."""
    pieces = [
        made("first.ogg", video=None, sound="libopus", seconds=8.0),
        made("other.ogg", video=None, sound="flac", seconds=8.0),
    ]
    path = concatenated(pieces, tmp_path / "mixed.ogg")
    results, _ = cut(path, [None, (1.0, 3.0), (12.0, 14.0)], kind="audio")
    assert problems(results) == ["ended_early", "cut", "ended_early"]
    assert_sounds((1.0, 3.0), results[1])


def test_a_stretch_without_picture_and_sound_shows_no_stale_frame(made, tmp_path):
    piece = made("vp9_opus.webm")
    path = remux([(piece, 0.0), (piece, 1000.0)], tmp_path / "gap.mkv")
    results, _ = cut(path, [None, (1.0, 3.0), (20.0, 24.0), (500.0, 504.0), (1001.0, 1003.0)])
    assert problems(results) == ["gap", "cut", "gap", "gap", "cut"]
    assert_exact(piece, (1.0, 3.0), results[1])
    assert numbers(results[4]) == numbers(results[1])
    assert heard_at_s(results[4]) == pytest.approx(1.0, abs=0.001)


def test_a_picture_that_can_no_longer_be_decoded_is_not_held(made, tmp_path):
    """The sound goes on, and so do the packets of the picture: it is not a slide that stays on the screen."""
    piece = made("h264_b_frames.mkv")

    def damaged(packet):
        is_late = packet.stream.type == "video" and packet.pts * packet.time_base > 6
        return b"\0" * packet.size if is_late else bytes(packet)

    path = remux([(piece, 0.0)], tmp_path / "no_picture.mkv", damaged)
    results, _ = cut(path, [(1.0, 3.0), (9.0, 11.0)])
    assert problems(results) == ["cut", "undecodable"]
    assert_exact(piece, (1.0, 3.0), results[0])


def test_a_track_that_begins_in_mid_file_disturbs_nothing(made, tmp_path):
    """Here a tag of an FLV becomes data of a script; PyAV raises an error where FFmpeg finds such a new track."""
    whole = made("whole.flv", video="flv", sound="libmp3lame")
    data = bytearray(whole.read_bytes())
    place, tags = 13, []
    while place + 11 < len(data):
        tags.append(place)
        place += 11 + int.from_bytes(data[place + 1 : place + 4], "big") + 4
    late_sound = [place for place in tags if data[place] == 8][-200]
    data[late_sound] = 18
    path = tmp_path / "new_track.flv"
    path.write_bytes(data)
    expected, _ = cut(whole, [(1.0, 3.0), (8.0, 11.0)])
    results, _ = cut(path, [(1.0, 3.0), (8.0, 11.0)])
    assert problems(results) == ["cut", "cut"]
    assert [numbers(clip) for clip in results.values()] == [numbers(clip) for clip in expected.values()]


def test_a_piece_in_tracks_of_its_own_is_said_to_be_missing(made, tmp_path):
    """Joined MPEG-TS whose second piece has other track numbers: FFmpeg takes the first picture and the first sound."""
    first = made("piece.ts", seconds=8.0)
    second = remux([(made("h264_b_frames.mp4"), 0.0)], tmp_path / "other.ts", mpegts_start_pid="0x200")
    path = concatenated([first, second], tmp_path / "joined.ts")
    results, facts = cut(path, [(1.0, 3.0), (12.0, 14.0)])
    assert facts.duration_s == pytest.approx(8.0, abs=0.1)
    assert problems(results) == ["cut", "ended_early"]
    results, _ = cut(path, [None, (1.0, 3.0), (12.0, 14.0)], kind="audio")
    assert problems(results) == ["ended_early", "cut", "ended_early"]
