"""The formats that are read: each that PyAV can write here, and NIST SPHERE made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.media.clip import Cut
from mmdata.media.container import FileProblem
from mmdata.media.formats import DEMUXERS_BY_FORMAT
from tests.support.cutting import cut, problems
from tests.support.made_videos import STORED_RATE, melody, number_in_jpeg, place_of, wave_in

SOUND = {
    "wav": ["pcm_s16le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"],
    "w64": ["pcm_s24le"],
    "flac": ["flac"],
    "mp3": ["libmp3lame"],
    "mp2": ["mp2"],
    "aac": ["aac"],
    "m4a": ["aac", "alac"],
    "ogg": ["libopus", "flac"],
    "mka": ["ac3", "eac3"],
    "avi": ["eac3", "ac3", "pcm_s16le"],  # E-AC-3 in AVI: the times that FFmpeg makes up are wrong by a factor
    "aiff": ["pcm_s16be"],
    "caf": ["pcm_s16le", "alac"],
    "au": ["pcm_s16be", "pcm_mulaw"],
    "voc": ["pcm_s16le"],
    "sox": ["pcm_s32le"],
    "ac3": ["ac3"],
    "eac3": ["eac3"],
    "wv": ["wavpack"],
    "tta": ["tta"],
    "wma": ["wmav2"],
    "nut": ["libmp3lame"],
    "rm": ["ac3"],
}
PICTURES = {
    "mp4": ["libx264", "libx265", "mpeg4", "libvpx-vp9"],
    "mov": ["prores_ks", "qtrle"],
    "3gp": ["h263"],
    "mkv": ["ffv1", "libvpx"],
    "webm": ["libsvtav1"],
    "avi": ["mjpeg", "msmpeg4v2", "ffvhuff"],
    "flv": ["flv"],
    "asf": ["wmv2"],
    "ts": ["mpeg2video"],
    "mpg": ["mpeg1video"],
    "mxf": ["mpeg2video"],
    "dv": ["dvvideo"],
    "rm": ["rv20"],
    "nut": ["ffv1"],
    "ivf": ["libvpx"],
    "y4m": ["wrapped_avframe"],
    "gif": ["gif"],
    "apng": ["apng"],
}
PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "qtrle": "rgb24", "gif": "rgb8", "apng": "rgb24"}
SIZES = {"dvvideo": (720, 576), "h263": (352, 288), "rv20": (352, 288)}  # these have a few sizes only


def _all(table: dict[str, list[str]]) -> list[str]:
    return [f"{codec}.{extension}" for extension, codecs in table.items() for codec in codecs]


def _assert_heard(clip: Any, start_s: float) -> None:
    assert isinstance(clip, Cut), clip
    wave, _, _ = wave_in(clip.members["flac"])
    place_s = place_of(wave[1600:]) / STORED_RATE - 0.1
    assert place_s == pytest.approx(start_s, abs=0.06)  # some formats do not know of their encoder's first silence


@pytest.mark.parametrize("name", _all(SOUND))
def test_sound_of_each_format_is_read(made, name):
    path = made(f"sound_{name}", video=None, sound=name.split(".")[0], seconds=4.0)
    results, facts = cut(path, [None, (1.5, 2.5)], kind="audio")
    assert facts.duration_s == pytest.approx(4.0, abs=0.15)
    _assert_heard(results[0], 0.0)
    _assert_heard(results[1], 1.5)


@pytest.mark.parametrize("name", _all(PICTURES))
def test_pictures_of_each_format_are_read(made, name):
    codec = name.split(".")[0]
    size, pixels = SIZES.get(codec, (160, 120)), PIXELS.get(codec, "yuv420p")
    path = made(f"film_{name}", video=codec, sound=None, seconds=2.0, size=size, pixels=pixels)
    results, facts = cut(path, [None, (0.5, 1.5)])
    assert facts.duration_s == pytest.approx(2.0, abs=0.1)
    assert problems(results) == ["cut", "cut"]
    for number, (start_s, end_s) in enumerate([(0.0, facts.duration_s), (0.5, 1.5)]):
        frames = [number_in_jpeg(data) for _, data in sorted(results[number].members.items())]
        middles = [start_s + (n + 0.5) / 8 * (end_s - start_s) for n in range(8)]
        assert [frame / 25 for frame in frames] == pytest.approx(middles, abs=0.061)


def test_nist_sphere_is_read(tmp_path):
    """The format of TIMIT, Switchboard and other collections of speech."""
    samples = np.round(melody()[: 48_000 * 4 : 3] * 32767).astype("<i2")
    fields = ["sample_count -i 64000", "sample_rate -i 16000", "channel_count -i 1", "sample_n_bytes -i 2"]
    fields += ["sample_byte_format -s2 01", "sample_coding -s3 pcm", "sample_sig_bits -i 16", "end_head"]
    header = "\n".join(["NIST_1A", "   1024", *fields, ""]).encode()
    path = tmp_path / "speech.wav"  # so are the files named
    path.write_bytes(header.ljust(1024) + samples.tobytes())
    results, facts = cut(path, [None, (1.5, 2.5)], kind="audio")
    assert facts.duration_s == pytest.approx(4.0, abs=0.01)
    _assert_heard(results[0], 0.0)
    _assert_heard(results[1], 1.5)


def test_the_reason_names_the_formats_that_are_read(made):
    unread = made("other.adx", video=None, sound="adpcm_adx", seconds=1.0)
    with pytest.raises(FileProblem) as problem:
        cut(unread, [None], kind="audio")
    assert problem.value.problem == "undecodable"
    assert all(name in problem.value.detail for name in DEMUXERS_BY_FORMAT)
    assert len(problem.value.detail) < 500  # longer details are cut


def test_the_page_lists_the_formats():
    page = (Path(__file__).parents[2] / "docs" / "video.md").read_text()
    assert [name for name in DEMUXERS_BY_FORMAT if name not in page] == []
