"""Cutting a video or a recording into clips, in one decoding pass: frames at given times, and the sound between them.

Times count from the beginning as players show it: the container's start time is zero. The frame of a time is the one
that is on the screen then. Runs in a process of its own (see `mmdata.download.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.download.clip import Active, Cut, CutProblem, Look, shown_size
from mmdata.flac import SAMPLE_RATE

FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,flac,wav,mp3,aac,amr,aiff,w64,caf"
"""Demuxers that may open a file: none that follows names in it to other files or hosts (HLS, DASH, concat, …)."""

SEEK_GAP_S = 8.0  # nothing is wanted for so long: it is skipped by keyframe
PREROLL_S = 0.5  # decoded before a clip's beginning, so that sound decoders have settled
MAX_ERRORS = 200  # packets in a row that cannot be decoded before the file counts as ended
LAST_FRAME_S = 0.5  # the last frame stays on the screen at least so long: sound is often a little longer
SOUND_GAP_S = 0.02  # of missing sound that is no rounding
PIECE = 4_000  # samples of sound at 16 kHz that are given to the clips at a time: it saves much bookkeeping
LAG_S = 10.0  # sound that lies so far behind the picture in the file is not waited for


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for: a span of the file in seconds; None, None: all of it."""

    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may be. See `mmdata.config.Clips` and `Download.max_pixels`."""

    max_duration_s: float
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of itself: pixels as shown (turned, square), frames a second, seconds."""

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    duration_s: float | None = None
    has_sound: bool = False


class FileProblem(Exception):
    """Why nothing of a file can be cut.

    Args:
        problem: a short class, such as `no_video`.
    """

    def __init__(self, problem: str, detail: str) -> None:
        self.problem, self.detail = problem, detail
        super().__init__(f"{problem}: {detail}")


@dataclass
class _File:
    """An open file: its streams, and where its time begins."""

    container: Any
    video: Any
    audio: Any
    origin_s: float
    facts: Facts
    ratio: float = 1.0

    @property
    def main(self) -> Any:
        """The stream that tells how far the file is."""
        return self.video if self.video is not None else self.audio


Done = Callable[[int, Cut | CutProblem], None]
"""Told of each span, by its number, as soon as it is cut."""


def cut_file(path: Path, kind: str, spans: Sequence[Span], look: Look, limits: Limits, done: Done) -> Facts:
    """Cut spans out of a file.

    Args:
        kind: `video` (frames, and sound if `look` asks for it) or `audio`.

    Raises:
        FileProblem: nothing can be cut; no span was done.
    """
    import av

    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path), options=options)
    except (av.FFmpegError, ValueError) as error:
        raise FileProblem("undecodable", f"cannot be opened ({_said(error)})") from None
    with container:
        file = _open(container, kind, look, limits)
        ready: list[Active] = []
        for one in sorted(_actives(spans, kind, look, file), key=lambda one: (one.start_s, one.number)):
            if one.asked_end_s <= one.start_s:
                done(one.number, CutProblem("bad_span", f"from {one.start_s:.3f} to {one.asked_end_s:.3f} s"))
            elif one.start_s >= (file.facts.duration_s or np.inf):
                done(one.number, CutProblem("past_end", f"begins at {one.start_s:.3f} s; {_length(file.facts)}"))
            else:
                ready.append(one)
        _Pass(file, ready, done).run()
        return file.facts


def _open(container: Any, kind: str, look: Look, limits: Limits) -> _File:
    from av.stream import Disposition

    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    video = pictures[0] if pictures and kind == "video" else None
    audio = container.streams.audio[0] if container.streams.audio and (kind == "audio" or look.sound) else None
    if kind == "video" and video is None:
        raise FileProblem("no_video", "the file has no moving picture")
    if kind == "audio" and audio is None:
        raise FileProblem("no_sound", "the file has no sound")
    start = (container.start_time or 0) / 1e6
    origin = start if start > 0 else 0.0
    duration = container.duration / 1e6 if container.duration else None
    if duration is not None and duration > limits.max_duration_s:
        raise FileProblem("too_long", f"{duration:.0f} s is over clips.max_duration_s ({limits.max_duration_s:g})")
    facts = Facts(duration_s=duration, has_sound=bool(container.streams.audio))
    if video is not None:
        context = video.codec_context
        if context.width * context.height > limits.max_pixels:
            size = f"{context.width} x {context.height}"
            raise FileProblem("bomb", f"{size} pixels is over download.max_pixels ({limits.max_pixels})")
        context.thread_count = 1  # other processes have the other cores
        rate = float(video.average_rate or video.guessed_rate or 0) or None
        facts = Facts(context.width, context.height, rate, duration, facts.has_sound)
    if audio is not None:
        audio.codec_context.thread_count = 1
    ratio = float((video.sample_aspect_ratio or 1) if video is not None else 1)
    return _File(container, video, audio, origin, facts, ratio if 0.1 < ratio < 10 else 1.0)


def _actives(spans: Sequence[Span], kind: str, look: Look, file: _File) -> Iterator[Active]:
    facts = file.facts
    for number, span in enumerate(spans):
        whole = span.start_s is None or span.end_s is None
        start = 0.0 if span.start_s is None else span.start_s
        end = span.end_s
        if end is None:
            end = facts.duration_s if facts.duration_s is not None else np.inf
        asked = end
        if facts.duration_s is not None:
            end = min(end, facts.duration_s)
        yield Active(number, start, end, asked, look, kind, whole, file.ratio)


class _Pass:
    """One pass over a file: packets are decoded in their order, and far ahead it is sought by keyframe."""

    def __init__(self, file: _File, ready: list[Active], done: Done) -> None:
        self._file, self._ready, self._done = file, ready, done
        self._streams = [stream for stream in (file.video, file.audio) if stream is not None]
        self._ends = {stream.index: 0.0 for stream in self._streams}
        self._sound = _Sound(file)
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
            self._done(one.number, one.finish(until, self._file.facts.duration_s or until))

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
        self._sound = _Sound(self._file)

    def _read_all(self) -> None:
        """The file cannot be sought in, or its index points to the wrong places: go through it."""
        self._may_seek, self._missed, self._landed = False, False, None
        self._file.container.seek(0, backward=True)
        self._ends = dict.fromkeys(self._ends, 0.0)
        self._sound = _Sound(self._file)


class _Sound:
    """Decoded sound as 16 kHz mono, at its place in time."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._resampler: Any = None
        self._form: tuple[str, str, int] | None = None  # of the frames that the resampler takes
        self._expected_s = 0.0  # where the next frame begins, if nothing is missing
        self._next: int | None = None  # sample that follows what was given
        self._end = 0

    def take(self, frame: Any, ready: list[Active]) -> float:
        """Give a frame to the clips, in pieces; where the sound has come to, in seconds.

        Args:
            frame: None: there are no more; what the resampler still holds is given.
        """
        import av

        if frame is None:
            self._give(None, ready)
            return self._end / SAMPLE_RATE
        if frame.pts is not None:
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            at_s = float(frame.pts * frame.time_base)
            if form != self._form or abs(at_s - self._expected_s) > SOUND_GAP_S:
                self._give(None, ready)
                # the mean of the channels is taken by us: the resampler's own mono is louder by 1.4, and clips
                self._resampler = av.AudioResampler("fltp", None, SAMPLE_RATE, frame_size=PIECE)
                self._form, self._next = form, None
            self._expected_s = at_s + frame.samples / frame.sample_rate
            self._give(frame, ready)
        return self._end / SAMPLE_RATE

    def _give(self, frame: Any, ready: list[Active]) -> None:
        if self._resampler is None:
            return
        for out in self._resampler.resample(frame):
            wave = out.to_ndarray().mean(0)
            at = round((float(out.pts * out.time_base) - self._file.origin_s) * SAMPLE_RATE)
            if self._next is not None and abs(at - self._next) < SOUND_GAP_S * SAMPLE_RATE:
                at = self._next  # rounding; a clock that runs slow or fast adds up to more
            self._next = at + len(wave)
            self._end = max(self._end, self._next)
            for one in ready:
                if one.start_s * SAMPLE_RATE > self._next:
                    break
                one.take_sound(at, wave)
        if frame is None:
            self._resampler = self._form = None


def _length(facts: Facts) -> str:
    return "the file says no length" if facts.duration_s is None else f"the file is {facts.duration_s:.3f} s long"


def _said(error: BaseException) -> str:
    """What FFmpeg says of a fault, without the name of our temporary file."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
