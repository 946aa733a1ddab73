"""Decodes pictures, frames and sound to tensors of the sizes that the encoders take, or reads their cached features."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import torch

from mmdata.errors import DataError
from mmdata.score.decode import decode_pixels
from mmdata.score.preprocess import Crop, Preprocess
from training.data.augment import RandomCrops, SeededVariation
from training.data.feature_cache import NO_FEATURES, CachedFeatures, FeatureTable, feature_key
from training.data.sample_reader import BadSample

SAMPLE_RATE = 16_000  # Hz, mono
PICTURE_EXTENSIONS = ("jpg", "png", "webp")
_FRAME_EXTENSION = re.compile(r"\d{3}\.(jpg|png|webp)")
_DATA_URI = re.compile(r"data:(?:image|audio)/[a-z]+;base64,(.*)", re.DOTALL)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class MediaSpec:
    """What the encoders take."""

    preprocess: Preprocess  # size, resize mode and normalisation of pictures
    frames: int = 8  # at most so many frames of a clip are read, evenly spaced
    audio_samples: int = 0  # length of a sound in samples at 16 kHz; 0: no sound is read
    augment: bool = False  # whether copies of a sample are varied by their seed
    features: CachedFeatures = NO_FEATURES  # of frozen encoders, which are read in place of the media
    crops: RandomCrops | None = None  # of pairs' pictures; None: pictures stay whole
    document_pictures: int = 0  # the first pictures of a document that are read; 0: documents are left out


@dataclass(frozen=True, slots=True)
class Media:
    """A sample's media, decoded, or as float16 features of a frozen encoder."""

    pictures: torch.Tensor | None  # uint8 N,3,H,W; N is 1 for a picture, else the number of frames or pictures
    sound: torch.Tensor | None  # float32 of `audio_samples`, or None
    is_clip: bool = False  # whether the pictures are frames

    @property
    def each_picture(self) -> list[torch.Tensor]:
        """The pictures, each uint8 3,H,W."""
        return [] if self.pictures is None else list(self.pictures)

    @property
    def counts(self) -> tuple[int, int]:
        """The number of pictures (or frames) and of sounds."""
        return 0 if self.pictures is None else len(self.pictures), int(self.sound is not None)


@dataclass(frozen=True, slots=True)
class EncodedMedium:
    """A picture, a frame or a sound before it is decoded."""

    data: bytes  # of its file
    named_by: tuple[bytes, ...]  # all that decides what it is decoded to, beside the MediaSpec
    decode: Callable[[], torch.Tensor]  # raises BadSample

    @property
    def key(self) -> bytes:
        """Of its features in a table."""
        return feature_key(*self.named_by)

    def read(self, table: FeatureTable | None) -> torch.Tensor:
        """Its features in the table; without a table, the decoded medium.

        Raises BadSample if it cannot be decoded, DataError if it can be and the table lacks it.
        """
        if table is None:
            return self.decode()
        if (features := table.get(self.key)) is not None:
            return features
        self.decode()
        raise DataError(
            f"{table.folder}: lacks the features of a picture or sound. Remedy: delete the folder, and train again."
        )


@dataclass(frozen=True, slots=True)
class EncodedMedia:
    """A sample's media before they are decoded."""

    pictures: list[EncodedMedium]
    sound: EncodedMedium | None
    is_clip: bool = False
    release_id: str | None = None  # that they belong to; None: they are a user's own

    def read(self, features: CachedFeatures) -> Media:
        """The media, decoded or as features. Raises as `EncodedMedium.read`."""
        pictures = [picture.read(features.picture) for picture in self.pictures]
        sound = None if self.sound is None else self.sound.read(features.sound)
        return Media(_stacked(pictures), sound, self.is_clip)


def _stacked(pictures: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """N,3,H,W; a single picture is not copied."""
    if len(pictures) == 1:
        return pictures[0][None]
    return torch.stack(list(pictures)) if pictures else None


def encoded_media(
    members: Mapping[str, bytes],
    spec: MediaSpec,
    variation: SeededVariation | None = None,
    *,
    is_document: bool = False,
    crop: Crop | None = None,
) -> EncodedMedia:
    """The media of a sample that the encoders take.

    Args:
        members: bytes by extension.
        is_document: the numbered pictures are those of a document, and not frames.
        crop: of all pictures.
    """
    frames = sorted(extension for extension in members if _FRAME_EXTENSION.fullmatch(extension))
    single = [extension for extension in PICTURE_EXTENSIONS if extension in members][:1]
    shown = frames[: spec.document_pictures] if is_document else evenly_spaced(frames, spec.frames)
    chosen = [members[extension] for extension in single or shown]
    if variation is None:
        pictures = [encoded_picture(data, spec, crop) for data in chosen]
    else:
        pictures = _varied_pictures(chosen, spec, variation, crop)
    sound = encoded_sound(members["flac"], spec, variation) if spec.audio_samples and "flac" in members else None
    return EncodedMedia(pictures, sound, bool(frames) and not is_document)


def decode_media(members: Mapping[str, bytes], spec: MediaSpec, variation: SeededVariation | None = None) -> Media:
    """Decode a sample's media, or read their features.

    Args: members: bytes by extension.
    Raises BadSample: something cannot be decoded; the message says what.
    """
    return encoded_media(members, spec, variation).read(spec.features)


def encoded_picture(data: bytes, spec: MediaSpec, crop: Crop | None = None) -> EncodedMedium:
    """A picture, or a part of it, before it is decoded to uint8 3,H,W."""
    return EncodedMedium(data, (data,), lambda: decode_picture(data, spec, crop))


def encoded_sound(data: bytes, spec: MediaSpec, variation: SeededVariation | None = None) -> EncodedMedium:
    """A sound before it is decoded to float32 of `audio_samples`."""
    named_by = (data,) if variation is None else (data, variation.name)
    return EncodedMedium(data, named_by, lambda: decode_sound(data, spec.audio_samples, variation))


def _varied_pictures(
    chosen: Sequence[bytes], spec: MediaSpec, variation: SeededVariation, crop: Crop | None
) -> list[EncodedMedium]:
    """Pictures that are varied together: the colours of one depend on those of all."""
    part = variation.crop if crop is None else crop.of(variation.crop)

    @cache
    def decoded() -> torch.Tensor:
        return variation.pictures(torch.stack([decode_picture(data, spec, part) for data in chosen]))

    def picture(at: int) -> EncodedMedium:
        named_by = (variation.name, str(at).encode(), *chosen)
        return EncodedMedium(chosen[at], named_by, lambda: decoded()[at])

    return [picture(at) for at in range(len(chosen))]


def decode_picture(data: bytes, spec: MediaSpec, crop: Crop | None = None) -> torch.Tensor:
    """A picture, or a part of it, as uint8 3,H,W. Raises BadSample."""
    try:
        return torch.from_numpy(decode_pixels(data, spec.preprocess, crop)).permute(2, 0, 1).contiguous()
    except ValueError as error:
        raise BadSample(str(error)) from None


def decode_data_uri(uri: str) -> bytes:
    """The bytes in a data URI of a picture or of sound. Raises BadSample."""
    match = _DATA_URI.fullmatch(uri)
    try:
        return base64.b64decode(match[1] if match else "", validate=True)
    except binascii.Error as error:
        raise BadSample(f"not base64 ({error})") from None


def decode_sound(data: bytes, samples: int, variation: SeededVariation | None = None) -> torch.Tensor:
    """Sound as float32 in [-1, 1] at 16 kHz, cut or padded with silence to `samples` samples. Raises BadSample."""
    speed = 1.0 if variation is None else variation.speed
    wave = _decode_wave(data, round(samples * speed))
    if variation is not None:
        length = max(1, min(samples, round(len(wave) / speed)))
        wave = np.interp(np.arange(length) * speed, np.arange(len(wave)), wave).astype(np.float32)
        wave = variation.sound(wave)
    return torch.from_numpy(np.pad(wave, (0, samples - len(wave))).astype(np.float32))


def _decode_wave(data: bytes, samples: int) -> np.ndarray:
    """The first `samples` samples of a sound, or fewer if it is shorter. Raises BadSample."""
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            # Channels are averaged here: the resampler's own mono is louder by the square root of 2, and clips.
            resampler = av.AudioResampler("fltp", None, SAMPLE_RATE)
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


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced, with the first and the last; the middle one if `count` is 1."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    return [items[round(at)] for at in np.linspace(0, len(items) - 1, count)]
