"""What stored sound is like: loudness, silence, speech, and how well speech and timed captions coincide."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.errors import UserError

SAMPLE_RATE = 16_000
SILENCE_DB = -50.0  # of full scale; a window below it is silent
WINDOW = 480  # samples, 30 ms
FLOOR_DB = -120.0

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Heard:
    """What was measured of a sample's sound; see FEATURES.

    Args:
        wave: float32, 16 kHz mono, for whoever measures more; None where it cannot be decoded.
        problem: `undecodable_sound`; the other fields are then None.
    """

    audio_rms_db: float | None = None
    silence_ratio: float | None = None
    speech_ratio: float | None = None
    speech_overlap: float | None = None
    problem: str | None = None
    wave: np.ndarray | None = None


def listen(data: bytes, captions: Sequence[Span] | None) -> Heard:
    """Measure a FLAC file. Never raises on bad data.

    Args:
        captions: when the words of its caption are said, in seconds of the sound; None: there are no words.

    Raises:
        UserError: the packages of mmdata[video] are not installed.
    """
    try:
        wave = decode(data)
    except ValueError:
        return Heard(problem="undecodable_sound")
    from mmdata.media.voice_activity import speech_spans

    spoken = speech_spans(wave)
    return Heard(
        audio_rms_db=loudness_db(wave),
        silence_ratio=silence_ratio(wave),
        speech_ratio=_length(spoken) / (len(wave) / SAMPLE_RATE),
        speech_overlap=None if captions is None else overlap(captions, spoken),
        wave=wave,
    )


def listen_all(sounds: Sequence[tuple[bytes, Sequence[Span] | None]], threads: int) -> list[Heard]:
    """`listen` to many, in threads."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda one: listen(*one), sounds))


def decode(data: bytes) -> np.ndarray:
    """A sound file as float32 in [-1, 1], 16 kHz mono.

    Raises:
        ValueError: it cannot be decoded, or holds nothing.
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("sound is decoded by PyAV. Remedy: pip install 'mmdata[video]'") from None
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
    return max(FLOOR_DB, 20 * float(np.log10(rms))) if rms > 0 else FLOOR_DB


def silence_ratio(wave: np.ndarray) -> float:
    """Share of 30 ms windows under -50 dB of full scale."""
    count = max(1, len(wave) // WINDOW)
    windows = wave[: count * WINDOW] if len(wave) >= WINDOW else wave
    levels = np.sqrt(np.mean(np.square(windows.reshape(count, -1), dtype=np.float64), axis=1))
    return float((levels < 10 ** (SILENCE_DB / 20)).mean())


def overlap(captions: Sequence[Span], spoken: Sequence[Span]) -> float:
    """Share of the captioned time in which somebody speaks, 0 to 1."""
    total = _length(captions)
    shared = sum(max(0.0, min(b, d) - max(a, c)) for a, b in captions for c, d in spoken)
    return min(1.0, shared / total) if total > 0 else 0.0


def caption_spans(row: Mapping[str, Any]) -> list[Span] | None:
    """When the words of a row's caption are said, in seconds of its sound: as the source says, else all the time.

    Args:
        row: caption, start_s, extra and audio_s. None: it has no caption.
    """
    if not row["caption"]:
        return None
    length, start = float(row["audio_s"]), float(row["start_s"] or 0.0)
    extra = json.loads(row["extra"]) if row["extra"] else {}
    timed = extra.get("captions") if isinstance(extra, dict) else None
    if not isinstance(timed, list):
        return [(0.0, length)]
    spans = [(float(one[0]) - start, float(one[1]) - start) for one in timed if isinstance(one, list) and len(one) == 3]
    inside = [(max(0.0, low), min(length, high)) for low, high in spans]
    return [(low, high) for low, high in inside if high > low] or [(0.0, length)]


def _length(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)
