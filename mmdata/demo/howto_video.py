"""Render the demo's how-to videos, drawings with spoken steps, to MP4 or WebM; the same plan gives the same bytes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.demo.drawings import draw
from mmdata.demo.recording_plan import PAUSE_S, WORDS_PER_S, HowTo, Step
from mmdata.media.flac import SAMPLE_RATE

WIDTH_PX, HEIGHT_PX, FPS = 320, 240, 10
DRAWING_PX = 300  # side of a drawing, before it is scaled and moved over the picture
PROGRESS_BAR_PX = 6
SOUND_FRAME_SAMPLES = 4096
X264_DETERMINISTIC = {"x264-params": "mbtree=0"}  # x264's macroblock tree differs from run to run

Speak = Callable[[str], np.ndarray]
"""A sentence -> float32 samples in [-1, 1], 16 kHz mono."""


def render_video(video: HowTo, speak: Speak) -> tuple[bytes, list[float]]:
    """The bytes of a how-to video's file, and the seconds of speech of each step."""
    waves = [speak(step.sentence) for step in video.steps]
    if video.planted == "silent":
        lengths_s = [len(step.sentence.split()) / WORDS_PER_S for step in video.steps]
        sound = None
    else:
        lengths_s = [len(wave) / SAMPLE_RATE for wave in waves]
        pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
        sound = np.concatenate([piece for wave in waves for piece in (wave, pause)])
    frames = _frames(video, [length + PAUSE_S for length in lengths_s])
    data = _encode(frames, sound, video.codec)
    return (data[: len(data) // 2] if video.planted == "cut_short" else data), lengths_s


def _frames(video: HowTo, lengths_s: list[float]) -> Iterator[np.ndarray]:
    """Frames, uint8 H,W,3 RGB: each step's drawing drifts and grows over its background, above a progress bar."""
    start_s = 0.0
    number = 0
    for step_number, (step, length_s) in enumerate(zip(video.steps, lengths_s, strict=True)):
        drawing = _draw_step(step)
        while number / FPS < start_s + length_s:
            if video.planted == "black":
                yield np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
            else:
                yield _compose_frame(drawing, (number / FPS - start_s) / length_s, step_number)
            number += 1
        start_s += length_s


def _draw_step(step: Step) -> np.ndarray:
    from PIL import Image

    png = draw(step.subject, DRAWING_PX, step.background, zoom=0.8)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _compose_frame(drawing: np.ndarray, progress: float, step_number: int) -> np.ndarray:
    """Place a drawing for a moment of its step: `progress` runs from 0 to 1."""
    import cv2

    scale = 0.72 + 0.12 * progress
    drift_px = 20 if step_number % 2 else -20
    left = WIDTH_PX / 2 - DRAWING_PX * scale / 2 + drift_px * (progress - 0.5)
    top = HEIGHT_PX / 2 - DRAWING_PX * scale / 2
    transform = np.array([[scale, 0, left], [0, scale, top]], np.float64)
    background = [int(value) for value in drawing[0, 0]]
    size = (WIDTH_PX, HEIGHT_PX)
    picture = cv2.warpAffine(drawing, transform, size, flags=cv2.INTER_LINEAR, borderValue=background)
    picture[HEIGHT_PX - PROGRESS_BAR_PX :, : max(1, round(WIDTH_PX * progress))] = (70, 70, 70)
    return picture


def _encode(frames: Iterator[np.ndarray], sound: np.ndarray | None, codec: str) -> bytes:
    """Encode frames and sound (float32, 16 kHz mono) as `h264` in MP4 or `vp9` in WebM."""
    import av

    options = {"preset": "veryfast", "crf": "26", "threads": "1", "bf": "2", **X264_DETERMINISTIC}
    video_codec, audio_codec, audio_rate = "libx264", "aac", SAMPLE_RATE
    file_format, format_options = "mp4", {"movflags": "+faststart"}
    if codec == "vp9":
        options = {"deadline": "realtime", "cpu-used": "8", "crf": "36", "b": "0", "threads": "1"}
        video_codec, audio_codec, audio_rate = "libvpx-vp9", "libopus", 48_000
        file_format, format_options = "webm", {}
    bitexact = {**format_options, "fflags": "+bitexact"}
    with (
        tempfile.TemporaryDirectory() as folder,  # to move the index to the front, FFmpeg needs a file
        av.open(f"{folder}/video", "w", format=file_format, options=bitexact) as container,
    ):
        picture: Any = container.add_stream(video_codec, rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        audio: Any = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=audio_rate)
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

    for start in range(0, len(wave), SOUND_FRAME_SAMPLES):
        piece = wave[None, start : start + SOUND_FRAME_SAMPLES].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield frame
