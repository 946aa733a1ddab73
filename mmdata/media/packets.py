"""Reads the packets of an open file: once for their times, and once more, placed on the timeline, to be decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmdata.media.timeline import Clock, Survey, Timeline

MAX_LATE_PACKETS = 2  # MPEG-TS gives the last picture when the next one begins, or at the end of the file
MIN_FOLLOWING_PACKETS = 20  # fewer are no recording
MIN_PICTURE_BYTES = 8  # a smaller packet of a picture only says that the one before it stays (MPEG-4, AVI)


def survey(container: Any, streams: Sequence[Any], origin_s: float, result: Survey) -> bool:
    """Read all packets of a file for their times.

    Returns whether the file goes on behind them: reading ends with an error, or the rest is in tracks of its own.

    Args:
        streams: picture and sound; the same ones must be read by `placed_packets`.
        origin_s: the container's start time.
        result: takes the packets.
    """
    import av

    ticks_s = {stream.index: float(stream.time_base) for stream in streams}
    pictures = {stream.index for stream in streams if stream.type == "video"}
    followers = _Followers(streams[0])
    try:
        for packet in _packets(container, [*container.streams.video, *container.streams.audio]):
            followers.note(packet)
            if packet.stream_index not in ticks_s or packet.is_discard or (packet.size == 0 and packet.dts is None):
                continue  # it is of another track, an edit list hides it, or it is the mark of the end
            tick_s = ticks_s[packet.stream_index]
            decoded_s, shown_s = (
                None if ticks is None else ticks * tick_s - origin_s for ticks in (packet.dts, packet.pts)
            )
            is_picture = packet.stream_index in pictures and packet.size >= MIN_PICTURE_BYTES
            duration_s = packet.duration * tick_s if packet.duration else 0.0
            if not duration_s and packet.stream_index not in pictures:
                duration_s = _decoded_length_s(packet)
            if packet.stream_index not in pictures:
                result.note_sound(packet.stream_index, shown_s, duration_s)
            result.add(packet.stream_index, is_picture, decoded_s, shown_s, duration_s)
    except av.FFmpegError:
        return True
    return followers.are_there


class _Followers:
    """Tracks that begin in the file where the main track has ended, as where MPEG-TS with other numbers were joined."""

    def __init__(self, main: Any) -> None:
        self._main = main.index, main.type
        self._beside: set[int] = set()
        self._behind: dict[int, int] = {}  # track -> its packets behind those of the main track
        self._late = 0  # packets of the main track behind theirs

    def note(self, packet: Any) -> None:
        number, (main, kind) = packet.stream_index, self._main
        if number == main and packet.size:
            self._late += 1 if self._behind else 0
            if self._late > MAX_LATE_PACKETS:
                self._beside.update(self._behind)
                self._behind.clear()
                self._late = 0
        elif packet.stream.type == kind and number not in self._beside and packet.size:
            self._behind[number] = self._behind.get(number, 0) + 1

    @property
    def are_there(self) -> bool:
        return any(packets >= MIN_FOLLOWING_PACKETS for packets in self._behind.values())


def _packets(container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue  # a track that begins in mid-file is unknown to PyAV; what it read was no packet of ours


def _decoded_length_s(packet: Any) -> float:
    """The length of the sound in a packet that does not state it, as where FLAC files were joined."""
    import av

    try:
        return float(sum(frame.samples / frame.sample_rate for frame in packet.decode()))
    except av.FFmpegError:
        return 0.0


def placed_packets(container: Any, streams: Sequence[Any], timeline: Timeline, origin_s: float) -> Iterator[Any]:
    """The packets of a file in their order; their times are those of the timeline, but counted from `origin_s`.

    A file that is not straight must be read from its beginning.
    """
    if timeline.is_straight:
        yield from _packets(container, streams)
        return
    clock = Clock(timeline)
    ticks_s = {stream.index: float(stream.time_base) for stream in streams}
    for packet in _packets(container, streams):
        if not packet.is_discard and not (packet.size == 0 and packet.dts is None):
            tick_s = ticks_s[packet.stream_index]
            decoded_s = None if packet.dts is None else packet.dts * tick_s - origin_s
            shift_s = clock.shift_s(packet.stream_index, decoded_s)
            shift = None if shift_s is None else round(shift_s / tick_s)
            packet.pts = None if packet.pts is None or shift is None else packet.pts + shift
            packet.dts = None if packet.dts is None or shift is None else packet.dts + shift
        yield packet
