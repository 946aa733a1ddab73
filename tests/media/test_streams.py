"""Which of several picture and sound tracks is read."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from mmdata.media.clip import Cut
from mmdata.media.container import FileProblem
from tests.support.cutting import cut
from tests.support.made_videos import wave_in

RATE = 16_000
DEFAULT, COMMENT = Disposition.default, Disposition.comment


def _file(path: Path, pictures: list[tuple[tuple[int, int], int]], sounds: list[tuple[str, float, int]]) -> Path:
    """A file of two seconds.

    Args:
        pictures: size and disposition of each track.
        sounds: layout, frequency in Hz and disposition of each track; a frequency of 0: the track has no packet.
    """
    with av.open(str(path), "w", options={"default_mode": "passthrough"} if path.suffix == ".mkv" else {}) as container:
        streams = []
        for (width, height), disposition in pictures:
            stream = container.add_stream("mpeg2video" if path.suffix == ".ts" else "mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for layout, _, disposition in sounds:
            stream = container.add_stream("aac", rate=RATE)
            stream.layout, stream.disposition = layout, disposition
            streams.append(stream)
        for stream, (width, height) in zip(streams, [size for size, _ in pictures], strict=False):
            for number in range(50):
                pixels = np.full((height, width, 3), 60 + number, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        for stream, (layout, frequency, _) in zip(streams[len(pictures) :], sounds, strict=True):
            wave = 0.3 * np.sin(np.arange(2 * RATE) * 2 * np.pi * frequency / RATE).astype(np.float32)
            channels = av.AudioLayout(layout).nb_channels
            for start in range(0, 2 * RATE, 1024) if frequency else ():
                part = np.tile(wave[start : start + 1024], (channels, 1))
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def _frequency(clip: object) -> int:
    assert isinstance(clip, Cut), clip
    wave, rate, _ = wave_in(clip.members["flac"])
    return round(float(np.abs(np.fft.rfft(wave)).argmax()) * rate / len(wave))


@pytest.mark.parametrize(
    ("sounds", "frequency"),
    [
        ([("mono", 400, 0), ("mono", 800, DEFAULT)], 800),  # the default one
        ([("mono", 400, 0), ("mono", 800, 0)], 400),  # none is marked: the first
        ([("mono", 400, DEFAULT), ("stereo", 800, DEFAULT)], 800),  # both: the one with more channels
        ([("mono", 400, DEFAULT), ("stereo", 800, 0)], 400),
        ([("stereo", 400, DEFAULT | COMMENT), ("mono", 800, 0)], 800),  # a commentary, though it is the default
        ([("mono", 400, Disposition.visual_impaired), ("mono", 800, 0)], 800),
        ([("mono", 400, COMMENT)], 400),  # better than none
    ],
)
def test_the_sound_track_is_the_one_that_a_player_takes(tmp_path, sounds, frequency):
    path = _file(tmp_path / "film.mkv", [((64, 48), DEFAULT)], sounds)
    results, _ = cut(path, [(0.0, 1.0)])
    assert _frequency(results[0]) == frequency


@pytest.mark.parametrize(
    ("pictures", "size"),
    [
        ([((64, 48), 0), ((96, 64), DEFAULT)], (96, 64)),
        ([((64, 48), DEFAULT), ((96, 64), 0)], (64, 48)),
        ([((64, 48), DEFAULT), ((96, 64), DEFAULT)], (96, 64)),
    ],
)
def test_the_picture_track_is_the_one_that_a_player_takes(tmp_path, pictures, size):
    path = _file(tmp_path / "film.mkv", pictures, [])
    results, facts = cut(path, [(0.0, 1.0)])
    assert isinstance(results[0], Cut), results[0]
    assert (results[0].width, results[0].height) == (facts.width, facts.height) == size


def test_a_track_that_is_announced_but_empty_is_passed_over(tmp_path):
    path = _file(tmp_path / "film.ts", [((64, 48), DEFAULT)], [("stereo", 0, DEFAULT), ("mono", 800, DEFAULT)])
    results, _ = cut(path, [(0.0, 1.0)])
    assert _frequency(results[0]) == 800


def test_a_track_that_cannot_be_decoded_is_passed_over_or_is_the_reason(tmp_path):
    path = _file(tmp_path / "film.mkv", [((64, 48), DEFAULT)], [("stereo", 400, DEFAULT), ("mono", 800, DEFAULT)])
    unknown_first, unknown = tmp_path / "unknown_first.mkv", tmp_path / "unknown.mkv"
    unknown_first.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_APA", 1))  # as Apple's spatial sound
    unknown.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_APA"))
    results, _ = cut(unknown_first, [(0.0, 1.0)])
    assert _frequency(results[0]) == 800
    with pytest.raises(FileProblem) as problem:
        cut(unknown, [(0.0, 1.0)], kind="audio")
    assert problem.value.problem == "undecodable"


def test_a_broadcast_of_two_programmes_gives_picture_and_sound_of_the_same_one(tmp_path):
    path = tmp_path / "broadcast.ts"
    command = [pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe(), "-v", "error"]
    for source in ("color=c=red:s=64x48:r=25:d=2", "color=c=red:s=96x64:r=25:d=2", "sine=400:d=2", "sine=800:d=2"):
        command += ["-f", "lavfi", "-i", source]
    command += ["-map", "0", "-map", "1", "-map", "2", "-map", "3", "-c:v", "mpeg2video", "-c:a", "mp2", "-ac:a:0", "2"]
    command += ["-program", "title=small:st=0:st=2", "-program", "title=large:st=1:st=3", str(path)]
    subprocess.run(command, check=True)
    results, facts = cut(path, [(0.0, 1.0)])
    assert (facts.width, facts.height) == (96, 64)
    assert _frequency(results[0]) == 800  # though the sound of the other programme has more channels
