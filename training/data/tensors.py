"""Bytes of pictures, frames and sound to tensors of the sizes that the encoders take."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from mmdata.score.decode import decode_pixels
from mmdata.score.preprocess import Preprocess
from training.data.release_index import BadSample

SAMPLE_RATE = 16_000  # Hz, mono
IMAGES = ("jpg", "png", "webp")
_FRAME = re.compile(r"\d{3}\.(jpg|png|webp)")
_DATA = re.compile(r"data:(?:image|audio)/[a-z]+;base64,(.*)", re.DOTALL)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class MediaSpec:
    """What the encoders take.

    Args:
        preprocess: size, resize mode and normalisation of pictures.
        frames: frames of a clip that are looked at, evenly spaced; fewer where it has fewer.
        audio_samples: length of the sound in samples at 16 kHz; 0: no sound is read.
        augment: copies of a sample are varied by their seed.
    """

    preprocess: Preprocess
    frames: int = 8
    audio_samples: int = 0
    augment: bool = False


class Variation(Protocol):
    """What is changed in a sample's media before a model sees them."""

    @property
    def speed(self) -> float:
        """How much faster its sound is played."""
        ...

    def pictures(self, pixels_NCHW: torch.Tensor) -> torch.Tensor: ...

    def sound(self, wave_S: np.ndarray) -> np.ndarray: ...


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


def read_media(members: Mapping[str, bytes], spec: MediaSpec, variation: Variation | None = None) -> Media:
    """Decode what a sample holds.

    Args:
        variation: what of it is changed; None: nothing.

    Raises:
        BadSample: something cannot be decoded; says what.
    """
    frames = sorted(ext for ext in members if _FRAME.fullmatch(ext))
    names = [ext for ext in IMAGES if ext in members][:1] or evenly(frames, spec.frames)
    pictures = torch.stack([picture(members[name], spec) for name in names]) if names else None
    if variation is not None and pictures is not None:
        pictures = variation.pictures(pictures)
    heard = spec.audio_samples and "flac" in members
    sound = audio(members["flac"], spec.audio_samples, variation) if heard else None
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
    return picture(embedded(uri), spec)


def embedded(uri: str) -> bytes:
    """What a data URI of a picture or of sound holds. Raises BadSample."""
    found = _DATA.fullmatch(uri)
    try:
        return base64.b64decode(found[1] if found else "", validate=True)
    except binascii.Error as error:
        raise BadSample(f"not base64 ({error})") from None


def audio(data: bytes, samples: int, variation: Variation | None = None) -> torch.Tensor:
    """Sound as float32 in [-1, 1], 16 kHz mono, cut or padded with silence to so many samples. Raises BadSample."""
    speed = 1.0 if variation is None else variation.speed
    wave = _decoded(data, round(samples * speed))
    if variation is not None:
        length = max(1, min(samples, round(len(wave) / speed)))
        wave = np.interp(np.arange(length) * speed, np.arange(len(wave)), wave).astype(np.float32)
        wave = variation.sound(wave)
    return torch.from_numpy(np.pad(wave, (0, samples - len(wave))).astype(np.float32))


def _decoded(data: bytes, samples: int) -> np.ndarray:
    """At most so many samples of sound. Raises BadSample."""
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
    return wave


def evenly(names: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the names, evenly spaced, the first and the last among them; of one, the middle."""
    if len(names) <= count:
        return list(names)
    if count == 1:
        return [names[len(names) // 2]]
    return [names[round(at)] for at in np.linspace(0, len(names) - 1, count)]
