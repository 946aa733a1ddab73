"""Mixes the channels of a sound track into one, as FFmpeg's `-ac 1` does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from mmdata.media.flac import SAMPLE_RATE
from mmdata.media.side_data import side_data

NATIVE_ORDER = [
    *("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR"),
    *("TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR"),
    *("DL", "DR", "WL", "WR", "SDL", "SDR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR"),
]
"""FFmpeg's names of channels in the order in which it keeps them."""

SQRT_HALF = 0.7071067811865476
CANCELLED_SHARE = 1 / 20  # of the energy; the channels' correlation is under -0.9 then


def mono_gains(frame: Any, file_channel_names: Sequence[str] = ()) -> np.ndarray:
    """What each channel of a decoded frame adds to a mono mix, in up to two ways.

    Args:
        file_channel_names: see `own_channel_names`; they are used if the frame does not name its channels.

    Returns:
        float32 1,C or 2,C. The second row, which is there if the track has a right side, inverts the polarity of that
        side. See `audible`.
    """
    names = tuple(channel.name for channel in frame.layout.channels)
    if "NONE" in names and len(names) == len(file_channel_names):
        names = tuple(file_channel_names)
    levels = side_data(frame, "DOWNMIX_INFO")  # what AC-3 says of its centre and its surround channels
    if levels is None:
        return _gains(names)
    _, centre, _, surround = struct.unpack_from("=i4xddd", levels)
    return _gains(names, centre, surround)


def audible(mixes: np.ndarray) -> np.ndarray:
    """The mix to store: the plain one, but for seconds in which the left side and the right side cancel each other out.

    They do if one side was wired the wrong way round; their difference is what was recorded.

    Args:
        mixes: float32 1,N or 2,N at 16 kHz, of a whole clip, so that it does not depend on how the file is cut into
            frames.
    """
    sound = mixes[0]
    for begin in range(0, mixes.shape[1] if len(mixes) > 1 else 0, SAMPLE_RATE):
        second = slice(begin, begin + SAMPLE_RATE)
        plain, inverted = (float(np.dot(row[second], row[second])) for row in mixes)
        if plain < CANCELLED_SHARE * inverted:
            sound[second] = mixes[1, second]
    return sound


def own_channel_names(stream: Any) -> tuple[str, ...]:
    """The names of a sound stream's channels before it is decoded, in the file's order.

    A file may list channels in an order of its own, such as left, right, surrounds, centre. PyAV frees such a list
    twice and crashes if a frame has one. The decoder therefore gets a layout that says only how many there are.
    """
    layout = stream.codec_context.layout  # must live until it is replaced, because it shares memory with the decoder
    names = tuple(channel.name for channel in layout.channels)
    if " channels (" in layout.name:
        stream.codec_context.layout = f"{len(names)} channels"
    return names


@lru_cache(maxsize=64)
def _gains(names: tuple[str, ...], centre: float = SQRT_HALF, surround: float = SQRT_HALF) -> np.ndarray:
    plain = _ffmpeg_gains(names, {"center_mix_level": str(centre), "surround_mix_level": str(surround)})
    right = np.array([name == "FRC" or name.endswith("R") for name in names])
    if len(names) == 2 and "NONE" in names:
        right = np.array([False, True])
    return np.stack([plain, np.where(right, -plain, plain)] if right.any() else [plain]).astype(np.float32)


def _ffmpeg_gains(names: tuple[str, ...], levels: dict[str, str]) -> np.ndarray:
    """The gain of each channel in FFmpeg's mix; equal ones, but none for the bass channel, if it knows no mix."""
    count = len(names)
    if names[0].startswith("AMBI"):  # ambisonic: the first channel is the sound from all sides
        return np.eye(1, count)[0]
    gains = None
    if set(names) == {"NONE"}:
        gains = _asked_gains(f"{count} channels", count, levels)  # FFmpeg takes its usual layout of that many
    elif len(set(names)) == count and set(names) <= set(NATIVE_ORDER):
        order = sorted(range(count), key=lambda number: NATIVE_ORDER.index(names[number]))
        gains = _asked_gains("+".join(names[number] for number in order), count, levels)
        gains = None if gains is None else gains[np.argsort(order)]
    if gains is not None:
        return gains
    heard = np.array([not name.startswith("LFE") for name in names])
    return heard / heard.sum() if heard.any() else np.full(count, 1 / count)


def _asked_gains(layout: str, count: int, levels: dict[str, str]) -> np.ndarray | None:
    """The gains in FFmpeg's mix of a layout, as the mix of one impulse a channel shows them; None if it mixes none."""
    import av

    options = levels | {"rematrix_maxval": "1.0"}  # so that nothing clips
    resampler = av.AudioResampler("flt", "mono", 48_000, options=options)
    impulses = np.eye(count, dtype=np.float32)  # sample n is 1 in channel n, and 0 in the others
    frame = av.AudioFrame.from_ndarray(impulses.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    try:
        return np.concatenate([out.to_ndarray()[0] for out in resampler.resample(frame)])
    except av.FFmpegError:
        return None
