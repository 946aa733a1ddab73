"""The demo's videos and sound: drawn frames and spoken steps in MP4, WebM and FLAC; the same in, the same bytes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.demo.drawings import draw
from mmdata.demo.howto import PAUSE_S, WORDS_PER_S, HowTo, Step
from mmdata.media.synthesis import SAMPLE_RATE

WIDTH, HEIGHT, FPS = 320, 240, 10
SAME_BYTES = {"x264-params": "mbtree=0"}  # its macroblock tree gives other bytes from run to run
DRAWN_PX = 300  # of a drawing before it is moved over the picture

Speak = Callable[[str], np.ndarray]
"""A sentence as float32 in [-1, 1], 16 kHz mono."""


def render_video(video: HowTo, speak: Speak) -> tuple[bytes, list[float]]:
    """A how-to video as the bytes of its file, and the seconds of speech of each step."""
    spoken = [speak(step.sentence) for step in video.steps]
    if video.planted == "silent":
        lengths_s = [len(step.sentence.split()) / WORDS_PER_S for step in video.steps]
        sound = None
    else:
        lengths_s = [len(wave) / SAMPLE_RATE for wave in spoken]
        pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
        sound = np.concatenate([piece for wave in spoken for piece in (wave, pause)])
    frames = _frames(video, [length + PAUSE_S for length in lengths_s])
    data = _encode(frames, sound, video.codec)
    return (data[: len(data) // 2] if video.planted == "cut_short" else data), lengths_s


def _frames(video: HowTo, lengths_s: list[float]) -> Iterator[np.ndarray]:
    """uint8 H,W,3 RGB: each step's drawing drifts and grows over its background; a bar tells how far the step is."""
    at = 0.0
    number = 0
    for index, (step, length) in enumerate(zip(video.steps, lengths_s, strict=True)):
        drawing = _drawing(step)
        while number / FPS < at + length:
            if video.planted == "black":
                yield np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            else:
                yield _composed(drawing, (number / FPS - at) / length, index)
            number += 1
        at += length


def _drawing(step: Step) -> np.ndarray:
    from PIL import Image

    png = draw(step.subject, DRAWN_PX, step.background, zoom=0.8)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _composed(drawing: np.ndarray, progress: float, index: int) -> np.ndarray:
    import cv2

    scale = 0.72 + 0.12 * progress
    left = WIDTH / 2 - DRAWN_PX * scale / 2 + (20 if index % 2 else -20) * (progress - 0.5)
    top = HEIGHT / 2 - DRAWN_PX * scale / 2
    placed = np.array([[scale, 0, left], [0, scale, top]], np.float64)
    corner = [int(value) for value in drawing[0, 0]]
    picture = cv2.warpAffine(drawing, placed, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderValue=corner)
    picture[HEIGHT - 6 :, : max(1, round(WIDTH * progress))] = (70, 70, 70)
    return picture


def _encode(frames: Iterator[np.ndarray], sound: np.ndarray | None, codec: str) -> bytes:
    import av

    name, options = ("libx264", {"preset": "veryfast", "crf": "26", "threads": "1", "bf": "2", **SAME_BYTES})
    container_name, audio_name, container_options = "mp4", "aac", {"movflags": "+faststart"}
    if codec == "vp9":
        name, options = "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "36", "b": "0", "threads": "1"}
        container_name, audio_name, container_options = "webm", "libopus", {}
    bitexact = {**container_options, "fflags": "+bitexact"}
    with (
        tempfile.TemporaryDirectory() as folder,  # moving the index to the front needs a file
        av.open(f"{folder}/video", "w", format=container_name, options=bitexact) as container,
    ):
        picture: Any = container.add_stream(name, rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = None
        if sound is not None:
            audio = container.add_stream(audio_name, rate=48_000 if codec == "vp9" else SAMPLE_RATE)
            audio.layout = "mono"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if audio is not None and sound is not None:
            resampler = av.AudioResampler(audio.format.name, "mono", audio.rate, frame_size=audio.frame_size or 1024)
            for frame in _sound_frames(sound):
                for piece in resampler.resample(frame):
                    container.mux(audio.encode(piece))
            for piece in resampler.resample(None):
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
        container.close()
        return Path(folder, "video").read_bytes()


def _sound_frames(wave: np.ndarray) -> Iterator[Any]:
    import av

    for start in range(0, len(wave), 4096):
        piece = wave[None, start : start + 4096].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield frame
