"""Interlaced film is stored as whole pictures at their times; other film stays as it is."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mmdata.media.clip import Cut
from mmdata.media.deinterlace import Deinterlacer, is_combed
from tests.support.cutting import cut

SIZE = (192, 144)
FPS, FRAMES = 25, 40


def _moment(tick: int) -> np.ndarray:
    """uint8 H,W,3 at a fiftieth of a second: a box that moves to the right, and fine lines that stand still."""
    width, height = SIZE
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[8:40:2, 8:60] = 220
    left = 4 * tick % (width - 48)
    pixels[52:116, left : left + 48] = (230, 200, 40)
    return pixels


def _pixels(number: int, interlaced: bool, top_first: bool) -> np.ndarray:
    pixels = _moment(2 * number)
    if interlaced:
        pixels[int(top_first) :: 2] = _moment(2 * number + 1)[int(top_first) :: 2]
    return pixels


def _film(path: Path, interlaced: bool = True, marked: bool = True, top_first: bool = True) -> Path:
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1" if top_first else "bff=1"} if marked else {}
    codec = "libx264" if path.suffix == ".mp4" else "mpeg2video"
    with av.open(str(path), "w") as container:
        quality = {"crf": "8", "preset": "ultrafast"} if codec == "libx264" else {"q:v": "2"}
        stream = container.add_stream(codec, rate=FPS, options={**options, **quality})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv422p" if codec == "libx264" else "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(_pixels(number, interlaced, top_first), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _combing(pixels: np.ndarray) -> float:
    """How much more the box's lines differ from the lines beside them than from the next ones of their field."""
    lines = pixels[56:112].astype(int)
    middle = lines[2:-2]
    beside, in_field = np.abs(2 * middle - lines[1:-3] - lines[3:-1]), np.abs(2 * middle - lines[:-4] - lines[4:])
    return float(beside.mean() / max(1.0, in_field.mean()))


def _pictures(path: Path) -> tuple[Cut, list[np.ndarray], list[np.ndarray]]:
    """A clip, its stored frames, and those of its kept video."""
    results, _ = cut(path, [(0.2, 1.6)], image_size=144, quality=98, keep_video=True)
    clip = results[0]
    assert isinstance(clip, Cut), clip
    jpegs = [data for name, data in clip.members.items() if name.endswith(".jpg")]
    stored = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in jpegs]
    with av.open(io.BytesIO(clip.members["mp4"])) as container:
        return clip, stored, [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "marked", "top_first"),
    [("film.mp4", True, True), ("film.mp4", True, False), ("film.ts", True, True), ("film.mp4", False, True)],
)
def test_interlaced_film_is_stored_without_combs_and_its_times_stay(tmp_path, name, marked, top_first):
    path = _film(tmp_path / name, marked=marked, top_first=top_first)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames[0].interlaced_frame == marked
    assert _combing(frames[10].to_ndarray(format="rgb24")) > 2
    clip, stored, kept = _pictures(path)
    plain, _, plain_kept = _pictures(_film(tmp_path / f"plain{path.suffix}", interlaced=False, marked=False))
    assert clip.times_s == pytest.approx(plain.times_s, abs=1e-3)
    assert len(kept) == len(plain_kept) >= 34
    for pixels in (*stored, *kept):
        assert _combing(pixels) < 1.2
    number = round(clip.times_s[4] * FPS)
    whole = cv2.cvtColor(_moment(2 * number), cv2.COLOR_RGB2BGR)
    assert np.abs(stored[4].astype(int) - whole).mean() < 4  # the first of its two moments


def test_whole_film_that_is_marked_as_interlaced_stays_as_it_is(tmp_path):
    path = _film(tmp_path / "film.mp4", interlaced=False)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    assert decoded[0].interlaced_frame
    deinterlacer = Deinterlacer()
    whole = [ready for frame in decoded for ready in deinterlacer.frames(frame)] + deinterlacer.flush()
    assert [frame.pts for frame in whole] == [frame.pts for frame in decoded]
    for before, after in zip(decoded, whole, strict=True):
        assert np.array_equal(before.to_ndarray(format="rgb24"), after.to_ndarray(format="rgb24"))


def test_only_lines_of_two_moments_are_combs():
    for interlaced in (True, False):
        before, after = (_pixels(number, interlaced, True)[..., 0].astype(np.int16) for number in (3, 4))
        assert is_combed(before, after) == interlaced
    assert not is_combed(before, before)  # fine lines that stand still


def test_frames_of_whole_film_are_given_back_at_once(tmp_path):
    with av.open(str(_film(tmp_path / "film.mp4", interlaced=False, marked=False))) as container:
        deinterlacer = Deinterlacer()
        for frame in container.decode(video=0):
            assert deinterlacer.frames(frame) == [frame]
        assert deinterlacer.flush() == []
