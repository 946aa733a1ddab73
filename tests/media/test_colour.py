"""Films are stored in the colours that a player shows, however these are coded."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest

from mmdata.media.clip import Cut
from mmdata.media.container import FileProblem
from tests.support.coloured_films import BARS, BT709_TO_BT2020, BT709_TO_P3, bars_in, coloured_film, hlg, pq
from tests.support.cutting import cut

WIDE: dict[str, Any] = {"matrix": 9, "to_primaries": BT709_TO_BT2020}
QUIET = "log-level=none"


def _stored(path: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first stored frame of a film and that of its kept video, in RGB."""
    results, _ = cut(path, [(0.0, 1.0)], keep_video=True, **options)
    clip = results[0]
    assert isinstance(clip, Cut), clip
    stored = cv2.imdecode(np.frombuffer(clip.members["000.jpg"], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    with av.open(io.BytesIO(clip.members["mp4"])) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_trc, frame.color_primaries, frame.color_range) == (1, 1, 1, 1)
        return stored, frame.to_ndarray(format="rgb24")


@pytest.mark.parametrize(
    "film",
    [
        {},  # small and untagged: BT.601
        {"size": (1280, 64), "matrix": 1},  # HD and untagged: BT.709
        {"size": (96, 720), "matrix": 1},
        {"size": (96, 720), "matrix": 5, "tags": (6, 2, 2)},  # tagged: as tagged
        {"matrix": 1, "tags": (1, 1, 1)},
        {"matrix": 4, "tags": (4, 4, 4)},
        {"matrix": 7, "tags": (7, 7, 7)},
        {"matrix": 5, "tags": (5, 6, 5)},
        {"matrix": 1, "tags": (12, 1, 1)},  # derived from the primaries
        {"full_range": True},
        {"matrix": 1, "tags": (1, 1, 1), "full_range": True, "bits": 10},
        {**WIDE, "tags": (9, 14, 9)},  # BT.2020 that is not HDR
        {**WIDE, "tags": (9, 2, 2)},
        {"matrix": 1, "tags": (1, 13, 12), "to_primaries": BT709_TO_P3},
    ],
)
def test_colours_are_those_that_were_coded(tmp_path, film):
    for pixels in _stored(coloured_film(tmp_path / "film.mkv", **film)):
        assert np.abs(np.subtract(bars_in(pixels), BARS)).max() <= 8


@pytest.mark.parametrize(
    "film",
    [
        {"code": pq, "tags": (9, 16, 9)},
        {"code": hlg, "tags": (9, 18, 9)},
        {"code": pq, "tags": (2, 16, 2)},
        {"code": pq, "tags": (9, 16, 9), "bits": 12, "encoder": "libx265", "options": {"x265-params": QUIET}},
    ],
)
def test_hdr_is_mapped_to_what_an_ordinary_screen_shows(tmp_path, film):
    for pixels in _stored(coloured_film(tmp_path / "film.mp4", **{"bits": 10, **WIDE, **film})):
        assert np.abs(np.subtract(bars_in(pixels), BARS)).max() <= 25


@pytest.mark.parametrize(
    "says", ["max-cll=150,50", "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(1500000,1)"]
)
def test_an_hdr_film_that_says_how_bright_it_gets_is_bent_less(tmp_path, says):
    film = {**WIDE, "code": pq, "tags": (9, 16, 9), "bits": 10, "encoder": "libx265"}
    path = coloured_film(tmp_path / "film.mp4", **film, options={"x265-params": f"{says}:{QUIET}"})
    for pixels in _stored(path):
        assert np.abs(np.subtract(bars_in(pixels), BARS)).max() <= 8


@pytest.mark.parametrize("matrix", [8, 10, 14, 15, 16])
def test_colours_that_are_not_converted_are_a_reason(tmp_path, matrix):
    path = coloured_film(tmp_path / "film.mkv", tags=(matrix, 2, 2))
    with pytest.raises(FileProblem) as problem:
        cut(path, [(0.0, 1.0)])
    assert (problem.value.problem, str(matrix) in problem.value.detail) == ("unknown_colours", True)


def test_dolby_vision_without_a_common_base_layer_is_a_reason(tmp_path):
    quiet = {"x265-params": QUIET}
    plain = coloured_film(tmp_path / "plain.mp4", bits=10, encoder="libx265", options=quiet).read_bytes()
    tagged = coloured_film(tmp_path / "tagged.mp4", bits=10, encoder="libx265", options=quiet, tags=(1, 1, 1))
    path = tmp_path / "dolby.mp4"
    path.write_bytes(plain.replace(b"hev1", b"dvh1"))
    with pytest.raises(FileProblem) as problem:
        cut(path, [(0.0, 1.0)])
    assert problem.value.problem == "unknown_colours"
    path.write_bytes(tagged.read_bytes().replace(b"hev1", b"dvh1"))  # its base layer is an ordinary film
    cut(path, [(0.0, 1.0)])


def _drawn_film(path: Any, pixels: np.ndarray, pixel_format: str, encoder: str, color_range: int = 0) -> Any:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=5)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], pixel_format
        stream.codec_context.color_range = color_range
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(pixels, format=pixel_format)
            frame.color_range = color_range
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("encoder", ["png", "qtrle"])
def test_transparency_lies_on_white(tmp_path, encoder):
    pixels = np.zeros((48, 64, 4), np.uint8)
    order = [0, 1, 2, 3] if encoder == "png" else [1, 2, 3, 0]
    for number, alpha in enumerate((255, 128, 0, 255)):
        pixels[:, 16 * number : 16 * number + 16, order] = (200, 30, 30, alpha)
    path = _drawn_film(tmp_path / "film.mov", pixels, "rgba" if encoder == "png" else "argb", encoder)
    half = tuple(round(value * 128 / 255 + 127) for value in (200, 30, 30))
    for shown in _stored(path):
        expected = [(200, 30, 30), half, (255, 255, 255), (200, 30, 30)]
        assert np.abs(np.subtract(bars_in(shown), expected)).max() <= 8


def test_rgb_is_not_converted(tmp_path):
    pixels = np.repeat(np.repeat(np.array([BARS], np.uint8), 16, 1), 720, 0)
    for shown in _stored(_drawn_film(tmp_path / "film.mov", pixels, "rgb24", "png")):
        assert np.abs(np.subtract(bars_in(shown), BARS)).max() <= 8


@pytest.mark.parametrize(("color_range", "white"), [(1, 255), (2, 235)])
def test_grey_has_the_range_that_it_says(tmp_path, color_range, white):
    pixels = np.full((48, 64), 235, np.uint8)
    pixels[:, :32] = 16
    path = _drawn_film(tmp_path / "film.mkv", pixels, "gray", "ffv1", color_range)
    for shown in _stored(path):
        black = 0 if color_range == 1 else 16
        assert np.abs(shown[24, 16].astype(int) - black).max() <= 4
        assert np.abs(shown[24, 48].astype(int) - white).max() <= 4
