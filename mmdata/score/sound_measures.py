"""Measures of stored sound: loudness, silence, speech, and how much of the captioned time has speech."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.errors import UserError
from mmdata.media.flac import SAMPLE_RATE
from mmdata.samples import own_columns
from mmdata.sources.problems import MAX_TIME_S

SILENCE_DB = -50.0  # of full scale; a window below it is silent
SILENCE_WINDOW_SAMPLES = 480  # 30 ms
MIN_LOUDNESS_DB = -120.0  # the value for digital silence

Span = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, slots=True)
class SoundMeasures:
    """What was measured of a sample's sound; see FEATURES for the units.

    Args:
        wave: float32 samples, 16 kHz mono, for the audio models; None where the sound cannot be decoded.
    """

    audio_rms_db: float | None = None
    silence_ratio: float | None = None
    speech_ratio: float | None = None
    speech_overlap: float | None = None
    problem: str | None = None  # `undecodable_sound`; all other fields are then None
    wave: np.ndarray | None = None


def measure_sound(data: bytes, captions: Sequence[Span] | None) -> SoundMeasures:
    """Measure a FLAC file. Never raises on bad data.

    Args:
        captions: when the words of the caption are spoken, in seconds of the sound; None: there is no caption.

    Raises:
        UserError: the packages of mmdata[video] are not installed.
    """
    try:
        wave = decode_sound(data)
    except ValueError:
        return SoundMeasures(problem="undecodable_sound")
    from mmdata.media.voice_activity import speech_spans

    speech = speech_spans(wave)
    return SoundMeasures(
        audio_rms_db=loudness_db(wave),
        silence_ratio=silence_ratio(wave),
        speech_ratio=_total_s(speech) / (len(wave) / SAMPLE_RATE),
        speech_overlap=None if captions is None else speech_overlap(captions, speech),
        wave=wave,
    )


def decode_sound(data: bytes) -> np.ndarray:
    """Decode a sound file to float32 samples in [-1, 1], 16 kHz mono.

    Raises:
        ValueError: it cannot be decoded, or holds no samples.
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("PyAV, which decodes sound, is not installed. Remedy: pip install 'mmdata[video]'") from None
    try:
        with av.open(io.BytesIO(data), options={"format_whitelist": "flac,wav,ogg"}) as container:
            resampler = av.AudioResampler("fltp", None, SAMPLE_RATE)
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ValueError(f"undecodable ({error})") from None
    pieces = [frame.to_ndarray().mean(0) for frame in frames]
    wave = np.concatenate(pieces).astype(np.float32) if pieces else np.empty(0, np.float32)
    if not len(wave):
        raise ValueError("empty")
    return wave


def loudness_db(wave: np.ndarray) -> float:
    """Root mean square in dB of full scale; digital silence is -120."""
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    return max(MIN_LOUDNESS_DB, 20 * float(np.log10(rms))) if rms > 0 else MIN_LOUDNESS_DB


def silence_ratio(wave: np.ndarray) -> float:
    """Share of 30 ms windows under -50 dB of full scale."""
    count = max(1, len(wave) // SILENCE_WINDOW_SAMPLES)
    windows = wave[: count * SILENCE_WINDOW_SAMPLES] if len(wave) >= SILENCE_WINDOW_SAMPLES else wave
    levels = np.sqrt(np.mean(np.square(windows.reshape(count, -1), dtype=np.float64), axis=1))
    return float((levels < 10 ** (SILENCE_DB / 20)).mean())


def speech_overlap(captions: Sequence[Span], speech: Sequence[Span]) -> float:
    """Share of the captioned time in which somebody speaks, 0 to 1."""
    captioned_s = _total_s(captions)
    shared_s = sum(
        max(0.0, min(caption_end, speech_end) - max(caption_start, speech_start))
        for caption_start, caption_end in captions
        for speech_start, speech_end in speech
    )
    return min(1.0, shared_s / captioned_s) if captioned_s > 0 else 0.0


def caption_spans(row: Mapping[str, Any]) -> list[Span] | None:
    """When the words of a row's caption are spoken, in seconds of its sound; None: the row has no caption.

    Where the source gives no times, the caption covers the whole sound.
    """
    if not row["caption"]:
        return None
    sound_s, clip_start_s = float(row["audio_s"]), float(row["start_s"] or 0.0)
    timed = own_columns(row["extra"]).get("captions")
    if not isinstance(timed, list):
        return [(0.0, sound_s)]
    # start, end, text; other sources may have a column of this name with other contents
    entries = [entry for entry in timed if isinstance(entry, list) and len(entry) == 3]
    times = [(start, end) for start, end, _ in entries if _is_time(start) and _is_time(end)]
    spans = [(max(0.0, start - clip_start_s), min(sound_s, end - clip_start_s)) for start, end in times]
    return [(start, end) for start, end in spans if end > start] or [(0.0, sound_s)]


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TIME_S


def _total_s(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)
