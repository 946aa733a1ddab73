"""Display matrices: a picture is stored as a player turns and mirrors it."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mmdata.media.clip import Cut
from tests.support.cutting import cut

ONE = 1 << 16
CORNERS = {(-1, -1): (200, 30, 30), (1, -1): (30, 200, 30), (-1, 1): (30, 30, 200), (1, 1): (220, 220, 220)}
EIGHT = [(a, 0, 0, d) for a, d in product((1, -1), repeat=2)] + [(0, b, c, 0) for b, c in product((1, -1), repeat=2)]


def _film(path: Path, matrix: tuple[float, float, float, float], aspect: Fraction = Fraction(1)) -> Path:
    """A film of one second, 64 x 48, whose quarters have the colours of CORNERS, with a display matrix a, b, c, d."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    for (x, y), colour in CORNERS.items():
        pixels[24 * (y > 0) :, 32 * (x > 0) :] = colour
    a, b, c, d = (round(value * ONE) for value in matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _corners(pixels: np.ndarray) -> dict[tuple[int, int], str]:
    """The colour nearest to that in each quarter of a picture."""
    height, width = pixels.shape[:2]
    seen = {(x, y): pixels[height * (2 + y) // 4, width * (2 + x) // 4].astype(int) for x, y in CORNERS}
    return {
        place: min(CORNERS.values(), key=lambda colour: np.abs(np.subtract(colour, seen[place])).sum())
        for place in CORNERS
    }


def _check(clip: object, expected: dict[tuple[int, int], tuple[int, int, int]], size: tuple[int, int]) -> None:
    assert isinstance(clip, Cut), clip
    stored = cv2.imdecode(np.frombuffer(clip.members["000.jpg"], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    with av.open(io.BytesIO(clip.members["mp4"])) as container:
        kept = next(container.decode(video=0)).to_ndarray(format="rgb24")
    for pixels in (stored, kept):
        assert pixels.shape[1::-1] == size
        assert _corners(pixels) == expected


@pytest.mark.parametrize("matrix", EIGHT)
def test_the_whole_display_matrix_is_applied(tmp_path, matrix):
    a, b, c, d = matrix
    expected = {(a * x + c * y, b * x + d * y): colour for (x, y), colour in CORNERS.items()}
    results, facts = cut(_film(tmp_path / "film.mp4", matrix), [(0.0, 1.0)], keep_video=True)
    size = (64, 48) if a else (48, 64)
    assert (facts.width, facts.height) == size
    _check(results[0], expected, size)


@pytest.mark.parametrize("matrix", [(0, 1, 1, 0), (0, 1, -1, 0)])
def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path, matrix):
    _, b, c, _ = matrix
    expected = {(c * y, b * x): colour for (x, y), colour in CORNERS.items()}
    results, facts = cut(_film(tmp_path / "film.mp4", matrix, Fraction(2)), [(0.0, 1.0)], keep_video=True)
    assert (facts.width, facts.height) == (48, 128)
    _check(results[0], expected, (48, 128))


@pytest.mark.parametrize(
    ("matrix", "nearest"),
    [
        ((0, 0, 0, 0), (1, 0, 0, 1)),  # says nothing
        ((0.5, 0, 0, 0.5), (1, 0, 0, 1)),
        ((-3, 0, 0, -3), (-1, 0, 0, -1)),
        ((0.98, 0.17, -0.17, 0.98), (1, 0, 0, 1)),  # a turn of ten degrees
        ((0.17, 0.98, -0.98, 0.17), (0, 1, -1, 0)),
        ((1, 0.4, 0, 1), (1, 0, 0, 1)),  # sheared
        ((-32768, -32768, -32768, -32768), (-1, 0, 0, -1)),  # the least that a file can hold
    ],
)
def test_an_odd_matrix_gives_the_nearest_orientation(tmp_path, matrix, nearest):
    a, b, c, d = nearest
    expected = {(a * x + c * y, b * x + d * y): colour for (x, y), colour in CORNERS.items()}
    results, _ = cut(_film(tmp_path / "film.mp4", matrix), [(0.0, 1.0)], keep_video=True)
    _check(results[0], expected, (64, 48) if a else (48, 64))


def test_frames_with_side_data_that_pyav_does_not_know_are_turned(tmp_path):
    """Motion JPEG whose frames carry EXIF, as cameras write it: PyAV raises when it is asked for a frame's matrix."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    for (x, y), colour in CORNERS.items():
        pixels[24 * (y > 0) :, 32 * (x > 0) :] = colour
    picture, exif, jpeg = Image.fromarray(pixels), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(jpeg, "jpeg", exif=exif, quality=95)
    path = tmp_path / "film.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(10):
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            packet.is_keyframe = True
            container.mux(packet)
    expected = {(-y, x): colour for (x, y), colour in CORNERS.items()}
    results, _ = cut(path, [(0.0, 1.0)], keep_video=True)
    _check(results[0], expected, (48, 64))
