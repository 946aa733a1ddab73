"""Bytes of pictures, frames and sound to tensors of the sizes that the encoders take."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mmdata.score.decode import decode_pixels
from mmdata.score.preprocess import Preprocess
from training.release import BadSample

SAMPLE_RATE = 16_000  # Hz, mono
IMAGES = ("jpg", "png", "webp")
_FRAME = re.compile(r"\d{3}\.(jpg|png|webp)")
_DATA = re.compile(r"data:image/[a-z]+;base64,(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MediaSpec:
    """What the encoders take.

    Args:
        preprocess: size, resize mode and normalisation of pictures.
        frames: frames of a clip that are looked at, evenly spaced; fewer where it has fewer.
        audio_samples: length of the sound in samples at 16 kHz; 0: no sound is read.
    """

    preprocess: Preprocess
    frames: int = 8
    audio_samples: int = 0


@dataclass(frozen=True, slots=True)
class Media:
    """A sample's media.

    Args:
        pictures: uint8 N,3,H,W; one for a picture, one a frame for a clip.
        sound: float32 of `audio_samples`, or None.
        is_clip: the pictures are frames.
    """

    pictures: torch.Tensor | None
    sound: torch.Tensor | None
    is_clip: bool = False


def read_media(members: Mapping[str, bytes], spec: MediaSpec) -> Media:
    """Decode what a sample holds.

    Raises:
        BadSample: something cannot be decoded; says what.
    """
    frames = sorted(ext for ext in members if _FRAME.fullmatch(ext))
    names = [ext for ext in IMAGES if ext in members][:1] or evenly(frames, spec.frames)
    pictures = torch.stack([picture(members[name], spec) for name in names]) if names else None
    sound = audio(members["flac"], spec.audio_samples) if spec.audio_samples and "flac" in members else None
    return Media(pictures, sound, bool(frames))


def picture(data: bytes, spec: MediaSpec) -> torch.Tensor:
    """uint8 3,H,W. Raises BadSample."""
    try:
        return torch.from_numpy(decode_pixels(data, spec.preprocess)).permute(2, 0, 1).contiguous()
    except ValueError as error:
        raise BadSample(str(error)) from None


def cropped(pixels_NCHW: torch.Tensor, scale: float, seed: int) -> torch.Tensor:
    """The same crop out of all frames, of at least `scale` of the area and its old size again (RandomResizedCrop).

    Args:
        pixels_NCHW: uint8.
        seed: another one, another crop.
    """
    height, width = pixels_NCHW.shape[-2:]
    draw = np.random.default_rng(seed)
    area = draw.uniform(scale, 1.0)
    widest = max(0.0, min(np.log(4 / 3), -np.log(area)))  # a wider one would not fit, and lose area where it is cut
    ratio = np.exp(draw.uniform(-widest, widest))
    rows = max(1, round(height * float(np.sqrt(area / ratio))))
    columns = max(1, round(width * float(np.sqrt(area * ratio))))
    top, left = draw.integers(height - rows + 1), draw.integers(width - columns + 1)
    part = pixels_NCHW[..., top : top + rows, left : left + columns].float()
    whole = torch.nn.functional.interpolate(part, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return whole.round().clamp(0, 255).to(torch.uint8)


def embedded_picture(uri: str, spec: MediaSpec) -> torch.Tensor:
    """The picture of a data URI, uint8 3,H,W. Raises BadSample."""
    found = _DATA.fullmatch(uri)
    try:
        data = base64.b64decode(found[1] if found else "", validate=True)
    except binascii.Error as error:
        raise BadSample(f"not base64 ({error})") from None
    return picture(data, spec)


def audio(data: bytes, samples: int) -> torch.Tensor:
    """Sound as float32 in [-1, 1], 16 kHz mono, cut or padded with silence to so many samples. Raises BadSample."""
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            resampler = av.AudioResampler("fltp", None, SAMPLE_RATE)  # its own mono is louder by sqrt 2, and clips
            chunks: list[np.ndarray] = []
            for frame in container.decode(audio=0):
                chunks += [out.to_ndarray().mean(0) for out in resampler.resample(frame)]
                if sum(map(len, chunks)) >= samples:
                    break
            else:
                chunks += [out.to_ndarray().mean(0) for out in resampler.resample(None)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise BadSample(f"sound: {error}") from None
    wave = np.concatenate(chunks)[:samples] if chunks else np.empty(0, np.float32)
    if not len(wave):
        raise BadSample("sound: empty")
    return torch.from_numpy(np.pad(wave, (0, samples - len(wave))).astype(np.float32))


def evenly(names: list[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spaced, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[round(at)] for at in np.linspace(0, len(names) - 1, count)]
