"""Sound as it is stored: FLAC, 16 kHz mono, 16 bits. Used for clips, synthesised speech and the demo."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000


def flac(wave: np.ndarray) -> bytes:
    """Encode sound as FLAC of 16 bits; the same samples give the same bytes.

    Args:
        wave: float32 in [-1, 1], 16 kHz mono.
    """
    import av

    out = io.BytesIO()
    values = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)
    with av.open(out, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("flac", rate=SAMPLE_RATE)
        stream.layout = "mono"
        for frame in audio_frames(values, "s16", 4096):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def audio_frames(samples: np.ndarray, sample_format: str, frame_samples: int) -> Iterator[Any]:
    """Mono samples at 16 kHz as PyAV's frames of `frame_samples` samples; the last one may be shorter."""
    import av

    for start in range(0, len(samples), frame_samples):
        piece = np.ascontiguousarray(samples[None, start : start + frame_samples])
        frame = av.AudioFrame.from_ndarray(piece, format=sample_format, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield frame


def flac_seconds(data: bytes) -> float:
    """The length of a FLAC file in seconds, by its header."""
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        return float(stream.duration * stream.time_base) if stream.duration else 0.0
