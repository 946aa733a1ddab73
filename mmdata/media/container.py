"""Opens a video or a sound file: chooses its streams, finds where its time begins, and refuses what is over a limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.media.downmix import own_channel_names
from mmdata.media.formats import DEMUXERS, FORMAT_NAMES, FORMATS_WITHOUT_DURATION, WRAPPING_FORMATS
from mmdata.media.packets import survey
from mmdata.media.streams import choose_picture, choose_sound, tracks
from mmdata.media.timeline import Survey, Timeline

if TYPE_CHECKING:
    from mmdata.media.clip import ClipOptions

MAX_STREAMS = 64
MAX_FPS = 1000.0  # more is the tick of the container's clock
FAR_LOOK = {"analyzeduration": str(300 * 10**6), "probesize": str(100 << 20)}  # microseconds, bytes

_NOTHING_OF_KIND = {
    "video": ("no_video", "the file has no moving picture"),
    "audio": ("no_sound", "the file has no sound"),
}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file says of itself. Width and height are as shown: rotated, with square pixels."""

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    duration_s: float = 0.0


class FileProblem(Exception):
    """Nothing of a file can be cut.

    Args:
        problem: a short class to count by, such as `no_video`.
        detail: the full message.
    """

    def __init__(self, problem: str, detail: str) -> None:
        self.problem, self.detail = problem, detail
        super().__init__(f"{problem}: {detail}")


@dataclass
class OpenFile:
    """An open file.

    Args:
        streams: the picture and the sound that times are told by, also sound that is not wanted.
        video, audio: those of them that are decoded.
        origin_s: the container's start time; times are counted from it.
        timeline: when its packets are seen and heard.
        promised_s: the length that the container states, if much of that is missing; else the length that it has.
        pixel_ratio: width of a pixel over its height.
        channel_names: of the sound, in the file's order.
    """

    path: Path
    container: Any
    streams: list[Any]
    video: Any
    audio: Any
    origin_s: float = 0.0
    timeline: Timeline = field(default_factory=lambda: Survey(closes_gaps=False).timeline(has_sound=False))
    promised_s: float = 0.0
    facts: FileFacts = FileFacts()
    pixel_ratio: float = 1.0
    channel_names: tuple[str, ...] = ()

    @property
    def main(self) -> Any:
        """The stream that times are measured by."""
        return self.video if self.video is not None else self.audio

    def restart(self) -> None:
        """Go back to the beginning. The file is opened anew, because seeking to it fails where times start over."""
        # a closed container's streams may not be touched: their memory is freed
        numbers = [stream.index for stream in self.streams]
        video, audio = (None if stream is None else stream.index for stream in (self.video, self.audio))
        self.container.close()
        self.container = _container(self.path)
        self.streams = [self.container.streams[number] for number in numbers]
        self.video, self.audio = (
            None if number is None else self.container.streams[number] for number in (video, audio)
        )
        for stream in self.streams:
            stream.codec_context.thread_count = 1  # each core has a decoder process of its own
            if stream.type == "audio":
                own_channel_names(stream)  # prepares the decoder, too


@contextmanager
def opened(path: Path, kind: str, options: ClipOptions) -> Iterator[OpenFile]:
    """Open a fetched file, but no other file that it may name.

    Args:
        kind: `video` or `audio`.

    Raises:
        FileProblem: it is not of that kind, or it is over a limit.
    """
    file = _with_streams(path, _container(path), kind, options)
    try:
        _measure(file, options)
        file.restart()
        yield file
    finally:
        file.container.close()


def _container(path: Path) -> Any:
    container = _av_open(path)
    contexts = [stream.codec_context for stream in (*container.streams.video, *container.streams.audio)]
    # the channels may not be asked for, see `own_channel_names`
    if all(
        context is None or (context.width if context.type == "video" else context.sample_rate) for context in contexts
    ):
        return container
    # the packets of a track begin late in the file, as pictures of slides do in MPEG-TS: FFmpeg looks further for them
    container.close()
    return _av_open(path, **FAR_LOOK)


def _av_open(path: Path, **options: str) -> Any:
    import av

    whitelists = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        return av.open(str(path), options={**whitelists, **options})
    except (av.FFmpegError, ValueError) as error:
        detail = f"cannot be opened ({_ffmpeg_message(error)}). These formats are read: {FORMAT_NAMES}"
        raise FileProblem("undecodable", detail) from None


def _with_streams(path: Path, container: Any, kind: str, options: ClipOptions) -> OpenFile:
    if len(container.streams) > MAX_STREAMS:
        raise FileProblem("bomb", f"the file has {len(container.streams)} streams, more than {MAX_STREAMS}")
    video = choose_picture(container) if kind == "video" else None
    sound, channel_names = choose_sound(container, video)
    audio = sound if kind == "audio" or options.sound else None
    if (video if kind == "video" else audio) is None:
        if tracks(container, kind):
            raise FileProblem("undecodable", f"FFmpeg has no decoder for the file's {kind} track")
        raise FileProblem(*_NOTHING_OF_KIND[kind])
    streams = [stream for stream in (video, sound) if stream is not None]
    file = OpenFile(path, container, streams, video, audio, channel_names=channel_names)
    if video is not None:
        context = video.codec_context
        if context.width * context.height > options.max_pixels:
            size = f"{context.width} x {context.height}"
            raise FileProblem("bomb", f"{size} pixels is over download.max_pixels ({options.max_pixels})")
        rate = float(video.average_rate or video.guessed_rate or 0)
        file.facts = FileFacts(context.width, context.height, rate if 0 < rate < MAX_FPS else None)
        pixel_ratio = float(video.sample_aspect_ratio or 1)
        file.pixel_ratio = pixel_ratio if 0.1 < pixel_ratio < 10 else 1.0
    return file


def _measure(file: OpenFile, options: ClipOptions) -> None:
    """Find out when a file's time begins, and how long it is. What its packets say counts, not what it says of itself.

    Raises:
        FileProblem: it is too long.
    """
    from av.format import Flags

    container = file.container
    may_leap = bool(container.format.flags & Flags.ts_discont.value)
    start_s = (container.start_time or 0) / 1e6
    # a negative start is a clock that wrapped around, but in formats with edit lists it is what a player does not show
    file.origin_s = start_s if start_s > 0 or container.format.name in WRAPPING_FORMATS else 0.0
    times = Survey(may_leap)
    breaks_off = survey(container, file.streams, file.origin_s, times)
    if times.misfits:
        times = Survey(may_leap, times.misfits)
        file.restart()
        survey(file.container, file.streams, file.origin_s, times)
    file.timeline = times.timeline(has_sound=any(stream.type == "audio" for stream in file.streams))
    container = file.container
    duration_s = file.promised_s = file.timeline.end_s
    if container.duration and file.timeline.is_straight and container.format.name not in FORMATS_WITHOUT_DURATION:
        claimed_s = container.duration / 1e6
        # some formats state the time of their end, not their length
        claims_s = [claim_s for claim_s in (claimed_s, claimed_s - file.origin_s) if abs(claim_s - duration_s) < 1]
        duration_s = claims_s[0] if claims_s else duration_s  # it is exact where packets are rounded
        file.promised_s = duration_s if claims_s else max(duration_s, claimed_s)
    if breaks_off:
        file.promised_s = math.inf
    if duration_s > options.max_duration_s:
        raise FileProblem("too_long", f"{duration_s:.0f} s is over clips.max_duration_s ({options.max_duration_s:g})")
    file.facts = replace(file.facts, duration_s=duration_s)


def _ffmpeg_message(error: BaseException) -> str:
    """FFmpeg's message for an error, without the name of our temporary file."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
