"""Cuts a video or a sound file into clips in one decoding pass: frames at given times, and the sound between them.

Times are counted as players show them: the container's start time is zero. The frame of a time is the one that is on
the screen then. Runs in a child process (see `mmdata.media.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from mmdata.media.clip import ClipBuilder, ClipOptions, Cut, CutProblem
from mmdata.media.colour import colour_problem
from mmdata.media.container import FileFacts, FileProblem, OpenFile, opened
from mmdata.media.deinterlace import Deinterlacer
from mmdata.media.packets import placed_packets
from mmdata.media.resample import SoundResampler
from mmdata.media.video_frames import shown_size

SEEK_GAP_S = 8.0  # a longer gap before the next clip is skipped by seeking to a keyframe
PREROLL_S = 0.5  # is decoded before a clip after seeking, because sound decoders need time to settle
MAX_ERRORS_IN_A_ROW = 200  # after so many packets that cannot be decoded the file counts as ended
MAX_SOUND_LAG_S = 10.0  # sound that is further behind the picture in the file is not waited for


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file to cut, in seconds; None, None: the whole file."""

    start_s: float | None = None
    end_s: float | None = None


OnCut = Callable[[int, Cut | CutProblem], None]
"""Is called with the number of each span and its clip, as soon as it is cut."""


def cut_file(path: Path, kind: str, spans: Sequence[Span], options: ClipOptions, on_cut: OnCut) -> FileFacts:
    """Cut spans out of a file.

    Args:
        kind: `video` (frames, and sound if `options` ask for it) or `audio`.

    Raises:
        FileProblem: nothing can be cut; `on_cut` was not called.
    """
    with opened(path, kind, options) as file:
        clips: list[ClipBuilder] = []
        for clip in sorted(_builders(spans, kind, options, file), key=lambda clip: (clip.start_s, clip.number)):
            if clip.requested_end_s <= clip.start_s:
                detail = f"from {clip.start_s:.3f} to {clip.requested_end_s:.3f} s"
                on_cut(clip.number, CutProblem("bad_span", detail))
            elif clip.start_s >= file.facts.duration_s:
                detail = f"begins at {clip.start_s:.3f} s; the file is {file.facts.duration_s:.3f} s long"
                is_missing = clip.start_s < file.promised_s
                on_cut(clip.number, CutProblem("ended_early" if is_missing else "past_end", detail))
            else:
                clips.append(clip)
        _DecodingPass(file, clips, on_cut).run()
        return file.facts


def _builders(spans: Sequence[Span], kind: str, options: ClipOptions, file: OpenFile) -> Iterator[ClipBuilder]:
    duration_s = file.facts.duration_s
    for number, span in enumerate(spans):
        is_whole = span.start_s is None or span.end_s is None
        start_s = 0.0 if span.start_s is None else span.start_s
        end_s = duration_s if span.end_s is None else span.end_s
        kept_end_s = min(end_s, duration_s)
        yield ClipBuilder(number, start_s, kept_end_s, end_s, options, kind, is_whole, file.timeline, file.pixel_ratio)


class _DecodingPass:
    """One pass over a file: packets are decoded in their order, and long gaps between clips are skipped by seeking.

    Args:
        clips: in the order of their beginnings; the pass removes those that are cut.
    """

    def __init__(self, file: OpenFile, clips: list[ClipBuilder], on_cut: OnCut) -> None:
        self._file, self._clips, self._on_cut = file, clips, on_cut
        self._decoded_until_s = {stream.index: 0.0 for stream in (file.video, file.audio) if stream is not None}
        self._sound = SoundResampler(file.origin_s, file.channel_names)
        self._deinterlacer = Deinterlacer()
        self._previous: tuple[float, Any] | None = None  # time and frame that is on the screen
        self._is_first = True  # nothing was decoded since the beginning or the last seek
        self._may_seek = file.timeline.is_straight  # otherwise the file's index does not know where a time is
        self._last_sought_s = -1.0  # the beginning of a clip; it is sought only once
        self._sought_time_s: float | None = None  # decoding must continue at or before it; None: no seek was made
        self._seek_missed = False  # what came first after a seek came too late for a clip
        self._errors_in_a_row = 0

    @property
    def _frame_s(self) -> float:
        """How long a frame is shown that does not say it."""
        return 1 / (self._file.facts.fps or 25.0)

    @property
    def _position_s(self) -> float:
        """The time up to which the main stream is decoded."""
        return self._decoded_until_s[self._file.main.index]

    @property
    def _should_seek(self) -> bool:
        """Whether the next clip is so far away that it is sought, and a keyframe lies between here and there."""
        begin_s = self._clips[0].start_s
        if not self._may_seek or begin_s == self._last_sought_s or begin_s - self._position_s <= SEEK_GAP_S:
            return False
        keyframe_s = self._keyframe_before(begin_s - PREROLL_S)
        if keyframe_s is not None and keyframe_s <= self._position_s:
            self._last_sought_s = begin_s  # a seek would go backwards
            return False
        return True

    def run(self) -> None:
        """Decode the file and report every clip."""
        has_ended = False
        while self._clips and not has_ended:
            if self._should_seek:
                self._seek(self._clips[0].start_s)
            has_ended = self._decode_until_gap()
            if has_ended:
                self._take_pictures(self._deinterlacer.flush())
            if has_ended and self._is_first and self._sought_time_s is not None:
                self._seek_missed = True  # nothing was decoded: what is on the screen begins before the place sought
            if self._seek_missed:
                self._start_over_without_seeking()
                has_ended = False
        self._take_sound(None)
        if self._previous is not None:
            self._hold_last_picture(*self._previous)
        end_s = max(self._decoded_until_s.values())
        for clip in self._clips:
            self._on_cut(clip.number, clip.finish(end_s, self._file.promised_s))

    def _hold_last_picture(self, time_s: float, frame: Any) -> None:
        """Give the clips the last frame. It stays on the screen until the sound ends, too."""
        for clip in self._clips:
            clip.take_last_picture(time_s, frame)
        until_s = self._file.facts.duration_s
        if not self._file.timeline.is_shown(time_s, until_s):
            until_s = time_s + self._frame_s  # packets that follow cannot be decoded
        self._decoded_until_s[self._file.video.index] = until_s

    def _decode_until_gap(self) -> bool:
        """Decode until a gap that is worth seeking. Returns whether the file has ended, regularly or by an error."""
        import av

        file = self._file
        self._previous, self._is_first = None, True
        self._deinterlacer.forget_frames()
        try:
            for packet in placed_packets(file.container, file.streams, file.timeline, file.origin_s):
                if packet.stream_index not in self._decoded_until_s:
                    continue  # sound that is not wanted
                for frame in self._decoded(packet):
                    if packet.stream is file.video:
                        self._take_pictures(self._deinterlacer.frames(frame))
                    else:
                        self._take_sound(frame, packet)
                    if self._seek_missed:
                        return False
                if self._errors_in_a_row > MAX_ERRORS_IN_A_ROW:
                    return True
                self._report_finished_clips()
                if not self._clips:
                    return True
                if self._should_seek:
                    return False
        except av.FFmpegError:
            return True
        return True

    def _decoded(self, packet: Any) -> list[Any]:
        import av

        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._errors_in_a_row += 1
            return []
        self._errors_in_a_row = 0
        return list(frames)

    def _take_pictures(self, frames: Sequence[Any]) -> None:
        for frame in frames:
            time_s = self._time_of_picture(frame)
            if self._is_first:
                self._check_seek(time_s)
            if self._seek_missed:
                return
            self._take_picture(time_s, frame)

    def _take_picture(self, time_s: float, frame: Any) -> None:
        if (detail := colour_problem(frame, self._file.video.codec_context.codec_tag)) is not None:
            raise FileProblem("unknown_colours", detail)
        if self._is_first:  # only a frame says how it is rotated; the file's header does not
            width, height = shown_size(frame, self._file.pixel_ratio)
            self._file.facts = replace(self._file.facts, width=width, height=height)
        self._is_first = False
        for clip in self._clips:
            if clip.start_s > time_s:
                break  # all that follow start later
            clip.take_picture(time_s, frame, self._previous)
        self._decoded_until_s[self._file.video.index] = max(self._position_s, time_s)
        self._previous = time_s, frame

    def _time_of_picture(self, frame: Any) -> float:
        """When a frame is shown. Time never goes back; a frame that has no time follows the one before it."""
        previous_s = -inf if self._previous is None else self._previous[0]
        if frame.pts is None:
            return max(0.0, previous_s + self._frame_s)
        return max(previous_s, float(frame.pts * frame.time_base) - self._file.origin_s)

    def _check_seek(self, time_s: float) -> None:
        """Note whether the first picture after a seek, or the first sound of a recording, is too late for a clip."""
        if self._sought_time_s is not None and time_s > self._sought_time_s:
            self._seek_missed = any(clip.needs_time_before(time_s) for clip in self._clips)

    def _take_sound(self, frame: Any, packet: Any = None) -> None:
        if self._is_first and frame is not None and frame.pts is not None and self._file.video is None:
            self._check_seek(float(frame.pts * frame.time_base) - self._file.origin_s)
            self._is_first = False
        if self._file.audio is not None:
            is_timed = packet is not None and packet.pts is not None
            packet_s = float(packet.pts * packet.time_base) if is_timed else None
            until_s = self._sound.give_frame(frame, self._clips, packet_s)
            index = self._file.audio.index
            self._decoded_until_s[index] = max(self._decoded_until_s[index], until_s)

    def _report_finished_clips(self) -> None:
        """Finish the clips whose picture and sound are decoded; sound that lags far behind is not waited for."""
        complete_until_s = min(
            self._position_s, max(min(self._decoded_until_s.values()), self._position_s - MAX_SOUND_LAG_S)
        )
        finished = []
        for clip in self._clips:
            if clip.start_s > complete_until_s:
                break
            if clip.end_s < complete_until_s:
                finished.append(clip)
        for clip in finished:
            self._on_cut(clip.number, clip.finish(complete_until_s, None))
            self._clips.remove(clip)

    def _keyframe_before(self, time_s: float) -> float | None:
        """The time of the last keyframe before a time, by the file's index; None if the index does not reach so far."""
        stream = self._file.main
        entries, ticks = stream.index_entries, round((time_s + self._file.origin_s) / stream.time_base)
        number = entries.search_timestamp(ticks, backward=True, any_frame=False)
        if number < 0 or number == len(entries) - 1:
            return None  # some demuxers read the index at the first seek only, so the last entry may not be the last
        return float(entries[number].timestamp * stream.time_base) - self._file.origin_s

    def _seek(self, begin_s: float) -> None:
        import av

        target_s = max(0.0, begin_s - PREROLL_S)
        self._last_sought_s = begin_s
        self._take_sound(None)
        try:
            self._file.container.seek(int((target_s + self._file.origin_s) * 1e6), backward=True)
        except av.FFmpegError:
            self._start_over_without_seeking()
            return
        self._sought_time_s = target_s
        self._sound = SoundResampler(self._file.origin_s, self._file.channel_names)

    def _start_over_without_seeking(self) -> None:
        """Read the file from its beginning, because seeking fails or its index points to the wrong places."""
        self._may_seek, self._seek_missed, self._sought_time_s = False, False, None
        self._file.restart()
        self._decoded_until_s = dict.fromkeys(self._decoded_until_s, 0.0)
        self._sound = SoundResampler(self._file.origin_s, self._file.channel_names)
