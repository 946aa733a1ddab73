"""Makes videos for tests. Each frame shows its number as black and white squares, and no stretch of sound repeats.

A test can thus read which frame a stored JPEG is, and where in the file a stored FLAC was.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

GRID = (4, 4)  # rows and columns of squares; each is a bit of the frame's number, the highest first
RATE = 48_000
STORED_RATE = 16_000
CLOCK = 90_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a file is made.

    Args:
        times_s: of each frame; None: `seconds` long at `fps`.
        first_s: presentation time of the first frame and of the sound, which may be negative.
        sound: codec of the sound; None: no track.
        rotation: degrees, counterclockwise, by which a player turns the picture.
        aspect: width of a pixel over its height.
        cover: the file also has an attached cover picture.
        pixels: FFmpeg's pixel format of the picture.
    """

    seconds: float = 12.0
    fps: int = 25
    size: tuple[int, int] = (320, 240)
    video: str | None = "libx264"
    sound: str | None = "aac"
    times_s: Sequence[float] | None = None
    first_s: float = 0.0
    gop: int = 50
    rotation: int = 0
    aspect: Fraction = Fraction(1)
    cover: bool = False
    pixels: str = "yuv420p"

    def frame_times_s(self) -> list[float]:
        times = self.times_s or [number / self.fps for number in range(round(self.seconds * self.fps))]
        return [self.first_s + time for time in times]


def make(path: Path, **changes: Any) -> Path:
    """Write a file in the container format of its extension."""
    recipe = Recipe(**changes)
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"} if recipe.first_s else {}) as container:
        video = _add_video(container, recipe) if recipe.video else None
        audio = _add_sound(container, recipe) if recipe.sound else None
        cover = container.add_stream("mjpeg", pix_fmt="yuvj420p") if recipe.cover else None
        if cover is not None:
            cover.width, cover.height = 64, 64
            cover.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        written = 0
        for number, at in enumerate(recipe.frame_times_s()):
            if audio is not None:  # interleaved, as a player reads it
                written = _write_sound(container, audio, recipe, written, at - recipe.first_s + 0.5)
            if video is not None:
                container.mux(video.encode(_frame(number, at, recipe)))
        if audio is not None:
            _write_sound(container, audio, recipe, written, recipe.seconds)
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode())
    return path


def picture(number: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 H,W,3: the number's bits as black and white squares."""
    rows, columns = GRID
    bits = [(number >> (rows * columns - 1 - place)) & 1 for place in range(rows * columns)]
    squares = np.array(bits, np.uint8).reshape(GRID) * 255
    return np.repeat(cv2.resize(squares, size, interpolation=cv2.INTER_NEAREST)[..., None], 3, 2)


def number_in(pixels: np.ndarray) -> int:
    """The number that a picture of any size shows."""
    rows, columns = GRID
    height, width = pixels.shape[:2]
    number = 0
    for row in range(rows):
        for column in range(columns):
            top, left = int((row + 0.25) * height / rows), int((column + 0.25) * width / columns)
            square = pixels[top : top + max(1, height // rows // 2), left : left + max(1, width // columns // 2)]
            number = 2 * number + int(square.mean() > 127)
    return number


def number_in_jpeg(data: bytes) -> int:
    return number_in(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@cache
def melody(seconds: float = 20.0) -> np.ndarray:
    """float32 at 48 kHz: noise below 3 kHz, no stretch of which is like another."""
    rng = np.random.default_rng(5)
    spectrum = np.fft.rfft(rng.normal(size=round(seconds * RATE)))
    spectrum[round(3_000 * seconds) :] = 0
    wave = np.fft.irfft(spectrum)
    return (0.2 * wave / np.abs(wave).std()).clip(-0.9, 0.9).astype(np.float32)


def place_of(wave: np.ndarray) -> int:
    """Where in the melody a stretch of sound was, in samples of 16 kHz, by cross-correlation."""
    count = len(_melody_16k())
    spectrum = _melody_spectrum() * np.conj(np.fft.rfft(wave, 2 * count))
    return int(np.fft.irfft(spectrum)[:count].argmax())


def likeness(wave: np.ndarray, at: int) -> float:
    """Correlation of a stretch of sound with the melody at a place."""
    original = _melody_16k()[at : at + len(wave)]
    return float(np.corrcoef(wave[: len(original)], original)[0, 1])


@cache
def _melody_16k() -> np.ndarray:
    # there is nothing above 3 kHz, so every third sample is enough
    return melody()[:: RATE // STORED_RATE].copy()


@cache
def _melody_spectrum() -> np.ndarray:
    return np.fft.rfft(_melody_16k(), 2 * len(_melody_16k()))


def wave_in(data: bytes) -> tuple[np.ndarray, int, int]:
    """float32 samples of the first channel of a sound file, their rate and the number of channels."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        whole = np.concatenate(frames, axis=1).astype(np.float32)[0] / 2**15
        return whole[:: stream.channels], stream.rate, stream.channels


def _add_video(container: Any, recipe: Recipe) -> Any:
    options = {
        "mpeg4": {"bf": "2", "q": "4"},
        "libx264": {"preset": "veryfast", "bf": "3", "b_strategy": "0", "sc_threshold": "0"},
    }
    at_once = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    fast = {"libvpx": at_once, "libvpx-vp9": at_once, "libx265": {"preset": "ultrafast", "x265-params": "log-level=0"}}
    stream = container.add_stream(recipe.video, rate=recipe.fps, options={**options, **fast}.get(str(recipe.video), {}))
    stream.width, stream.height = recipe.size
    stream.pix_fmt = recipe.pixels
    stream.codec_context.gop_size = recipe.gop
    stream.codec_context.time_base = stream.time_base = Fraction(1, _ticks_per_s(recipe))
    if recipe.aspect != 1:
        stream.codec_context.sample_aspect_ratio = recipe.aspect
    if recipe.rotation:
        stream.set_display_rotation(recipe.rotation)
    return stream


def _ticks_per_s(recipe: Recipe) -> int:
    # many codecs know frame rates only, and MPEG-4 has 16 bits for the ticks of a second
    return CLOCK if recipe.video in ("libx264", "libx265", "libvpx", "libvpx-vp9", "libsvtav1") else recipe.fps


def _frame(number: int, at: float, recipe: Recipe) -> av.VideoFrame:
    width, height = recipe.size
    turned = recipe.rotation % 180 != 0
    pixels = picture(number, (height, width) if turned else (width, height))
    if recipe.rotation:
        pixels = np.rot90(pixels, -recipe.rotation // 90)  # the player turns it back
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
    clock = _ticks_per_s(recipe)
    frame.pts, frame.time_base = round(at * clock), Fraction(1, clock)
    return frame


def _add_sound(container: Any, recipe: Recipe) -> Any:
    stream = container.add_stream(recipe.sound, rate=RATE)
    stream.layout = "stereo"
    if recipe.sound in ("aac", "libopus", "libmp3lame", "wmav2"):
        stream.bit_rate = 192_000
    return stream


def _write_sound(container: Any, stream: Any, recipe: Recipe, written: int, until_s: float) -> int:
    """Encode the melody up to a time; how many samples are written then."""
    until = round(min(until_s, recipe.seconds) * RATE)
    size = stream.codec_context.frame_size or 1024
    while written < until and (written + size <= until or until == round(recipe.seconds * RATE)):
        part = melody()[written : min(written + size, until)]
        frame = av.AudioFrame.from_ndarray(np.stack([part, part]), format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = written + round(recipe.first_s * RATE)
        for packet in stream.encode(frame):
            container.mux(packet)
        written += len(part)
    return written
