"""Cutting a video or a recording into clips, in one decoding pass: frames at given times, and the sound between them.

Times count from the beginning as players show it: the container's start time is zero. The frame of a time is the one
that is on the screen then. Runs in a process of its own (see `mmdata.media.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdata.media.clip import Active, Cut, CutProblem, Look, shown_size
from mmdata.media.container import Facts, Limits, OpenFile, opened
from mmdata.media.resample import Sound

SEEK_GAP_S = 8.0  # nothing is wanted for so long: it is skipped by keyframe
PREROLL_S = 0.5  # decoded before a clip's beginning, so that sound decoders have settled
MAX_ERRORS = 200  # packets in a row that cannot be decoded before the file counts as ended
LAST_FRAME_S = 0.5  # the last frame stays on the screen at least so long: sound is often a little longer
LAG_S = 10.0  # sound that lies so far behind the picture in the file is not waited for


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for: a span of the file in seconds; None, None: all of it."""

    start_s: float | None = None
    end_s: float | None = None


Done = Callable[[int, Cut | CutProblem], None]
"""Told of each span, by its number, as soon as it is cut."""


def cut_file(path: Path, kind: str, spans: Sequence[Span], look: Look, limits: Limits, done: Done) -> Facts:
    """Cut spans out of a file.

    Args:
        kind: `video` (frames, and sound if `look` asks for it) or `audio`.

    Raises:
        FileProblem: nothing can be cut; no span was done.
    """
    with opened(path, kind, look.sound, limits) as file:
        ready: list[Active] = []
        for one in sorted(_actives(spans, kind, look, file), key=lambda one: (one.start_s, one.number)):
            if one.asked_end_s <= one.start_s:
                done(one.number, CutProblem("bad_span", f"from {one.start_s:.3f} to {one.asked_end_s:.3f} s"))
            elif one.start_s >= file.facts.duration_s:
                told = f"begins at {one.start_s:.3f} s; the file is {file.facts.duration_s:.3f} s long"
                done(one.number, CutProblem("past_end", told))
            else:
                ready.append(one)
        _Pass(file, ready, done).run()
        return file.facts


def _actives(spans: Sequence[Span], kind: str, look: Look, file: OpenFile) -> Iterator[Active]:
    facts = file.facts
    for number, span in enumerate(spans):
        whole = span.start_s is None or span.end_s is None
        start = 0.0 if span.start_s is None else span.start_s
        asked = facts.duration_s if span.end_s is None else span.end_s
        yield Active(number, start, min(asked, facts.duration_s), asked, look, kind, whole, file.ratio)


class _Pass:
    """One pass over a file: packets are decoded in their order, and far ahead it is sought by keyframe."""

    def __init__(self, file: OpenFile, ready: list[Active], done: Done) -> None:
        self._file, self._ready, self._done = file, ready, done
        self._streams = [stream for stream in (file.video, file.audio) if stream is not None]
        self._ends = {stream.index: 0.0 for stream in self._streams}
        self._sound = Sound(file.origin_s)
        self._before: tuple[float, Any] | None = None  # the frame that is on the screen
        self._may_seek = True
        self._sought = -1.0  # the beginning that was sought last, never sought again
        self._landed: float | None = None  # where decoding goes on at the latest; None: at the beginning
        self._missed = False
        self._errors = 0

    @property
    def _at(self) -> float:
        """Where decoding has come to, in seconds."""
        return self._ends[self._file.main.index]

    @property
    def _is_gap(self) -> bool:
        """Whether nothing is wanted for so long that the next clip is sought, if a keyframe lies on the way."""
        begin = self._ready[0].start_s
        if not self._may_seek or begin == self._sought or begin - self._at <= SEEK_GAP_S:
            return False
        keyframe_s = self._keyframe_before(begin - PREROLL_S)
        if keyframe_s is not None and keyframe_s <= self._at:
            self._sought = begin
            return False
        return True

    def run(self) -> None:
        """Hand out every clip."""
        ended = False
        while self._ready and not ended:
            if self._is_gap:
                self._seek(self._ready[0].start_s)
            ended = self._stretch()
            if self._missed:
                self._read_all()
                ended = False
        self._take_sound(None)
        if self._before is not None:
            frame_s = max(1 / (self._file.facts.fps or 25.0), LAST_FRAME_S)
            for one in self._ready:
                one.last_picture(*self._before, frame_s)
            self._ends[self._file.main.index] += 1 / (self._file.facts.fps or 25.0)
        until = max(self._ends.values())
        for one in self._ready:
            self._done(one.number, one.finish(until, self._file.facts.duration_s))

    def _stretch(self) -> bool:
        """Decode until nothing is wanted for a while; whether the file has ended, by its end or by a fault."""
        import av

        self._before = None
        first = True
        try:
            for packet in self._file.container.demux(self._streams):
                for frame in self._decoded(packet):
                    if packet.stream is not self._file.video:
                        self._take_sound(frame)
                    elif frame.pts is not None:
                        self._picture(frame, first)
                        first = False
                    if self._missed:
                        return False
                if self._errors > MAX_ERRORS:
                    return True
                self._hand_out()
                if not self._ready:
                    return True
                if self._is_gap:
                    return False
        except av.FFmpegError:
            return True
        return True

    def _decoded(self, packet: Any) -> list[Any]:
        import av

        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._errors += 1
            return []
        self._errors = 0
        return list(frames)

    def _picture(self, frame: Any, first: bool) -> None:
        at = float(frame.pts * frame.time_base) - self._file.origin_s
        if first and self._landed is not None and at > self._landed:
            self._missed = any(one.wants_picture_before(at) for one in self._ready)
            if self._missed:
                return
        if first:  # a frame knows how it is turned, the file's head does not
            width, height = shown_size(frame, self._file.ratio)
            self._file.facts = replace(self._file.facts, width=width, height=height)
        for one in self._ready:
            if one.start_s > at:
                break  # and so do all that follow
            one.take_picture(at, frame, self._before)
        self._ends[self._file.video.index] = max(self._at, at)
        self._before = at, frame

    def _take_sound(self, frame: Any) -> None:
        if self._file.audio is not None:
            index = self._file.audio.index
            self._ends[index] = max(self._ends[index], self._sound.take(frame, self._ready))

    def _hand_out(self) -> None:
        until = min(self._at, max(min(self._ends.values()), self._at - LAG_S))
        whole = []
        for one in self._ready:
            if one.start_s > until:
                break
            if one.end_s < until:
                whole.append(one)
        for one in whole:
            self._done(one.number, one.finish(until, None))
            self._ready.remove(one)

    def _keyframe_before(self, at: float) -> float | None:
        """Where the file's index has the last keyframe before a time; None: it does not reach so far."""
        stream = self._file.main
        entries, ticks = stream.index_entries, round((at + self._file.origin_s) / stream.time_base)
        number = entries.search_timestamp(ticks, backward=True, any_frame=False)
        if number < 0 or number == len(entries) - 1:
            return None  # some demuxers read the index when it is first sought in: what is known ends too early
        return float(entries[number].timestamp * stream.time_base) - self._file.origin_s

    def _seek(self, begin: float) -> None:
        import av

        target = max(0.0, begin - PREROLL_S)
        self._sought = begin
        self._take_sound(None)
        try:
            self._file.container.seek(int((target + self._file.origin_s) * 1e6), backward=True)
        except av.FFmpegError:
            self._read_all()
            return
        self._landed = target
        self._sound = Sound(self._file.origin_s)

    def _read_all(self) -> None:
        """The file cannot be sought in, or its index points to the wrong places: go through it."""
        self._may_seek, self._missed, self._landed = False, False, None
        self._file.container.seek(0, backward=True)
        self._ends = dict.fromkeys(self._ends, 0.0)
        self._sound = Sound(self._file.origin_s)
