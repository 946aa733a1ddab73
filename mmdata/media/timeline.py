"""Places the packets of a file on one timeline, which its picture and its sound share.

A file may be several recordings in a row, each with times of its own: joined MPEG-TS, chained Ogg, files that `cat` put
together. Players show such pieces one after the other, and so they are placed here. The rules are those of FFmpeg, but
for all formats: a step back begins a new piece; so does a leap forward in formats whose times may leap (MPEG, Ogg).
A leap that only one stream makes is a pause of that stream. Nothing here reads a file: see `mmdata.media.container`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_GAP_S = 10.0  # a larger leap forward may be a new piece; it is FFmpeg's -dts_delta_threshold
MAX_STEP_BACK_S = 0.5  # a smaller step back is jitter of the clock
MAX_EXCURSION_S = 10.0  # after so long the clock that was before does not come back
MAX_SILENT_HOLD_S = 60.0  # a picture stands so long at most if nothing says how long, and the file has no sound
ROUNDING_S = 0.002  # of containers that count milliseconds
MIN_MISFITS = 8  # packets; of fewer nothing can be said
MAX_PICTURE_DELAY_S = 1.0  # decoded frames may differ so much from the times of their packets


@dataclass
class _Piece:
    leaps_forward: bool  # from the end of the piece before it
    begin_s: float = math.inf  # in decoding order
    reached_s: float = -math.inf
    last_s: dict[int, float] = field(default_factory=dict)  # of each stream


@dataclass
class _Excursion:
    """A stretch whose times do not follow those before it. If the clock comes back, they were damaged."""

    piece: int  # before it
    before_s: float
    begin_s: float
    first_packet: int


@dataclass
class _Stream:
    packets: int = 0
    piece: int = 0
    excursion: _Excursion | None = None


class Pieces:
    """Tells to which piece of a file each packet belongs. The same packets in the same order give the same answers."""

    def __init__(self) -> None:
        self._pieces = [_Piece(False)]
        self._streams: dict[int, _Stream] = {}
        self.stray_packets: set[tuple[int, int]] = set()  # stream and number of packets whose time is damaged

    @property
    def leaps_forward(self) -> list[bool]:
        """Of each piece, whether its times go on behind those of the piece before it."""
        return [piece.leaps_forward for piece in self._pieces]

    def piece_of(self, stream: int, time_s: float | None) -> int:
        """The number of a packet's piece.

        Args:
            time_s: when the packet is decoded; None: unknown, it belongs to the piece of the packet before it.
        """
        state = self._streams.setdefault(stream, _Stream(piece=len(self._pieces) - 1))
        state.packets += 1
        if time_s is None:
            return state.piece
        last_s = self._pieces[state.piece].last_s.get(stream)
        if last_s is None or abs(time_s - last_s) <= MAX_STEP_BACK_S:
            number = state.piece
        else:
            number = self._piece_after_step(state, stream, last_s, time_s)
        piece = self._pieces[number]
        piece.begin_s = min(piece.begin_s, time_s)
        piece.reached_s = max(piece.reached_s, time_s)
        state.piece, piece.last_s[stream] = number, time_s
        if state.excursion is not None and abs(time_s - state.excursion.begin_s) > MAX_EXCURSION_S:
            state.excursion = None
        return number

    def settled_packets(self, stream: int) -> int:
        """How many of a stream's packets certainly have the piece that was told, or are certainly strays."""
        state = self._streams[stream]
        return state.packets if state.excursion is None else state.excursion.first_packet - 1

    def _continues(self, number: int, stream: int, time_s: float) -> bool:
        piece = self._pieces[number]
        last_s = piece.last_s.get(stream)
        earliest_s = piece.begin_s - MAX_GAP_S if last_s is None else last_s - MAX_STEP_BACK_S
        return earliest_s <= time_s <= piece.reached_s + MAX_GAP_S

    def _piece_after_step(self, state: _Stream, stream: int, last_s: float, time_s: float) -> int:
        """The piece of a packet whose time is far from that of the packet before it."""
        away = state.excursion
        if away is not None:
            comes_back = (time_s > last_s) == (away.before_s > last_s)
            latest_s = away.before_s + max(0.0, last_s - away.begin_s) + 2 * MAX_STEP_BACK_S
            if comes_back and away.before_s - MAX_STEP_BACK_S <= time_s <= latest_s:
                self.stray_packets.update((stream, number) for number in range(away.first_packet, state.packets))
                state.excursion = None
                return away.piece
        state.excursion = _Excursion(state.piece, last_s, time_s, state.packets)
        later_pieces = range(len(self._pieces) - 1, state.piece, -1)  # other streams were there first
        for number in (state.piece, *later_pieces):
            if self._continues(number, stream, time_s):
                return number
        self._pieces.append(_Piece(leaps_forward=time_s > self._pieces[state.piece].reached_s))
        return len(self._pieces) - 1


@dataclass(frozen=True, slots=True)
class Timeline:
    """When a file's pictures and its sound are seen and heard, in seconds from its beginning.

    Args:
        shifts_s: what is added to the times of each piece; None: its times are damaged.
        stray_packets: stream and number of the packets whose time is damaged.
        untimed_streams: sound whose times do not fit its length; each of its packets follows the one before it.
        end_s: the end of what is seen or heard last.
        picture_times_s: of the packets of the picture, sorted.
        holes: stretches, begin and end, in which the file has neither picture nor sound, sorted.
    """

    shifts_s: list[float | None]
    stray_packets: set[tuple[int, int]]
    untimed_streams: frozenset[int]
    end_s: float
    picture_times_s: array[float]
    holes: list[tuple[float, float]]

    @property
    def is_straight(self) -> bool:
        """Whether the file's own times are those of the timeline."""
        is_shifted = any(shift_s != 0 for shift_s in self.shifts_s)
        return not (is_shifted or self.stray_packets or self.untimed_streams)

    def hole_at(self, time_s: float) -> tuple[float, float] | None:
        """The stretch without picture and sound at a time; None if there is none."""
        place = bisect_right(self.holes, (time_s, math.inf)) - 1
        return self.holes[place] if place >= 0 and time_s < self.holes[place][1] else None

    def is_shown(self, frame_s: float, time_s: float) -> bool:
        """Whether a frame is the one on the screen at a time: no packet in between holds another picture."""
        place = bisect_right(self.picture_times_s, time_s) - 1
        return place < 0 or self.picture_times_s[place] <= frame_s + MAX_PICTURE_DELAY_S


class Clock:
    """Tells by how much each packet is shifted on a timeline, while the file is read from its beginning again."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._pieces = Pieces()
        self._packets: dict[int, int] = {}  # of each stream

    def shift_s(self, stream: int, decoded_s: float | None) -> float | None:
        """What is added to a packet's times; None: its times are damaged, and it follows the packet before it."""
        if stream in self._timeline.untimed_streams:
            return None
        self._packets[stream] = self._packets.get(stream, 0) + 1
        piece = self._pieces.piece_of(stream, decoded_s)
        is_stray = (stream, self._packets[stream]) in self._timeline.stray_packets
        return None if is_stray or piece >= len(self._timeline.shifts_s) else self._timeline.shifts_s[piece]


@dataclass(frozen=True, slots=True)
class _Packet:
    number: int
    piece: int
    is_picture: bool
    begin_s: float | None
    duration_s: float


@dataclass
class _SoundFit:
    """How often the time of a sound packet is the end of the packet before it."""

    next_s: float | None = None
    tolerance_s: float = 0.0
    fits: int = 0
    misfits: int = 0

    def note(self, time_s: float | None, duration_s: float) -> None:
        if time_s is not None and self.next_s is not None:
            does_fit = abs(time_s - self.next_s) <= self.tolerance_s
            self.fits, self.misfits = self.fits + does_fit, self.misfits + (not does_fit)
        self.next_s = None if time_s is None or not duration_s else time_s + duration_s
        self.tolerance_s = duration_s / 2 + ROUNDING_S


class Survey:
    """Collects the times of all packets of a file, in its order.

    Args:
        closes_gaps: the format's times may leap; the piece behind a leap follows the piece before it without a gap.
        untimed_streams: sound whose times are not heeded.
    """

    def __init__(self, closes_gaps: bool, untimed_streams: frozenset[int] = frozenset()) -> None:
        self._closes_gaps, self._untimed = closes_gaps, untimed_streams
        self._fits: dict[int, _SoundFit] = {}
        self._pieces = Pieces()
        self._unsettled: dict[int, list[_Packet]] = {}  # of each stream
        self._packets: dict[int, int] = {}
        self._end_s: dict[tuple[int, int], float] = {}  # of each piece and stream
        self._pictures: dict[int, array[float]] = {}  # of each piece
        self._filled: dict[tuple[int, int], list[tuple[float, float]]] = {}  # of each piece and stream

    def add(
        self, stream: int, is_picture: bool, decoded_s: float | None, shown_s: float | None, duration_s: float
    ) -> None:
        """Add a packet.

        Args:
            is_picture: it holds a picture; False: sound, or an empty packet that keeps the picture on the screen.
            decoded_s, shown_s: None if the packet does not say it; it then follows the packet before it.
        """
        if stream in self._untimed:
            decoded_s = shown_s = None
        piece = self._pieces.piece_of(stream, decoded_s)
        self._packets[stream] = self._packets.get(stream, 0) + 1
        begin_s = shown_s if shown_s is not None else decoded_s
        unsettled = self._unsettled.setdefault(stream, [])
        unsettled.append(_Packet(self._packets[stream], piece, is_picture, begin_s, duration_s))
        while unsettled and unsettled[0].number <= self._pieces.settled_packets(stream):
            self._place(stream, unsettled.pop(0))

    def note_sound(self, stream: int, time_s: float | None, duration_s: float) -> None:
        """Note how the packets of a sound stream follow one another."""
        self._fits.setdefault(stream, _SoundFit()).note(time_s, duration_s)

    @property
    def misfits(self) -> frozenset[int]:
        """The sound streams most of whose times do not fit the lengths of their packets (some AVI and RealMedia)."""
        return frozenset(stream for stream, fit in self._fits.items() if fit.misfits > max(fit.fits, MIN_MISFITS))

    def _place(self, stream: int, packet: _Packet) -> None:
        if (stream, packet.number) in self._pieces.stray_packets:
            return
        key = packet.piece, stream
        begin_s = self._end_s.get(key, 0.0) if packet.begin_s is None else packet.begin_s
        end_s = begin_s + packet.duration_s
        self._end_s[key] = max(end_s, self._end_s.get(key, end_s))
        if packet.is_picture:
            self._pictures.setdefault(packet.piece, array("d")).append(begin_s)
        filled = self._filled.setdefault(key, [])
        if filled and filled[-1][0] - MAX_GAP_S <= begin_s <= filled[-1][1] + MAX_GAP_S:
            filled[-1] = (min(begin_s, filled[-1][0]), max(end_s, filled[-1][1]))
        else:
            filled.append((begin_s, end_s))

    def timeline(self, has_sound: bool) -> Timeline:
        """The timeline of the packets that were added.

        Args:
            has_sound: a stretch without sound is a sign that something is missing.
        """
        for stream, unsettled in self._unsettled.items():
            for packet in unsettled:
                self._place(stream, packet)
        shifts_s: list[float | None] = []
        pictures: array[float] = array("d")
        filled: list[tuple[float, float]] = []
        file_end_s = shift_s = 0.0
        for number, leaps in enumerate(self._pieces.leaps_forward):
            runs = [run for (piece, _), stream_runs in self._filled.items() if piece == number for run in stream_runs]
            if not runs:  # its times are damaged
                shifts_s.append(None)
                continue
            if number > 0 and (self._closes_gaps or not leaps):
                shift_s = file_end_s - min(begin_s for begin_s, _ in runs)
            shifts_s.append(shift_s)
            filled += [(begin_s + shift_s, end_s + shift_s) for begin_s, end_s in runs]
            pictures.extend(time_s + shift_s for time_s in self._pictures.get(number, ()))
            file_end_s = max(end_s for _, end_s in filled)
        holes = _holes(filled, MAX_GAP_S if has_sound else MAX_SILENT_HOLD_S)
        times_s = array("d", sorted(pictures))
        return Timeline(shifts_s, self._pieces.stray_packets, self._untimed, file_end_s, times_s, holes)


def _holes(filled: Iterable[tuple[float, float]], min_length_s: float) -> list[tuple[float, float]]:
    """What lies between the stretches that are filled, if it is long."""
    holes = []
    until_s = -math.inf
    for begin_s, end_s in sorted(filled):
        if until_s > -math.inf and begin_s - until_s > min_length_s:
            holes.append((until_s, begin_s))
        until_s = max(until_s, end_s)
    return holes
