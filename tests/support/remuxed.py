"""Copies the packets of films that were made for tests into another file, with other times or other bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av


def remux(
    parts: Sequence[tuple[Path, float]],
    target: Path,
    changed_bytes: Callable[[Any], bytes] | None = None,
    **options: str,
) -> Path:
    """Write the packets of some files, one file after the other, as one file.

    Args:
        parts: each file, and what is added to its times, in seconds.
        changed_bytes: gives the bytes that are written for a packet.
        options: of FFmpeg's muxer.
    """
    with av.open(str(target), "w", options=options) as container:
        streams: dict[int, Any] = {}
        for path, shift_s in parts:
            with av.open(str(path)) as source:
                for stream in source.streams:
                    if stream.index not in streams:
                        streams[stream.index] = container.add_stream_from_template(stream)
                for packet in source.demux():
                    if packet.dts is None and packet.size == 0:
                        continue
                    copy = av.Packet(bytes(packet) if changed_bytes is None else changed_bytes(packet))
                    shift = round(shift_s / packet.time_base)
                    copy.pts = None if packet.pts is None else packet.pts + shift
                    copy.dts = None if packet.dts is None else packet.dts + shift
                    copy.time_base, copy.duration = packet.time_base, packet.duration
                    copy.is_keyframe = packet.is_keyframe
                    copy.stream = streams[packet.stream.index]
                    container.mux(copy)
    return target
