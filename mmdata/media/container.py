"""Opens a video or a sound file: chooses its streams, finds where its time begins, and refuses what is over a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.media.streams import choose_picture, choose_sound, tracks

if TYPE_CHECKING:
    from mmdata.media.clip import ClipOptions

DEMUXERS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,flac,wav,mp3,aac,amr,aiff,w64,caf"
"""Demuxers that may open a file; none of them opens other files or hosts that it names (as HLS, DASH, concat do)."""

FORMATS_WITHOUT_DURATION = frozenset({"mp3", "aac", "amr"})
"""Formats whose length FFmpeg can only guess from the bit rate."""

MAX_STREAMS = 64

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
        video, audio: the streams that are read; None if there is none or it is not wanted.
        origin_s: the container's start time; times are counted from it.
        pixel_ratio: width of a pixel over its height.
        channel_names: of the sound, in the file's order.
    """

    container: Any
    video: Any
    audio: Any
    origin_s: float
    facts: FileFacts
    pixel_ratio: float = 1.0
    channel_names: tuple[str, ...] = ()

    @property
    def main(self) -> Any:
        """The stream that times are measured by."""
        return self.video if self.video is not None else self.audio


@contextmanager
def opened(path: Path, kind: str, options: ClipOptions) -> Iterator[OpenFile]:
    """Open a fetched file, but no other file that it may name.

    Args:
        kind: `video` or `audio`.

    Raises:
        FileProblem: it is not of that kind, or it is over a limit.
    """
    import av

    whitelists = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path), options=whitelists)
    except (av.FFmpegError, ValueError) as error:
        raise FileProblem("undecodable", f"cannot be opened ({_ffmpeg_message(error)})") from None
    with container:
        yield _opened(container, kind, options)


def _opened(container: Any, kind: str, options: ClipOptions) -> OpenFile:
    if len(container.streams) > MAX_STREAMS:
        raise FileProblem("bomb", f"the file has {len(container.streams)} streams, more than {MAX_STREAMS}")
    video = choose_picture(container) if kind == "video" else None
    audio, channel_names = choose_sound(container) if kind == "audio" or options.sound else (None, ())
    if (video if kind == "video" else audio) is None:
        if tracks(container, kind):
            raise FileProblem("undecodable", f"FFmpeg has no decoder for the file's {kind} track")
        raise FileProblem(*_NOTHING_OF_KIND[kind])
    start = (container.start_time or 0) / 1e6
    origin = start if start > 0 else 0.0
    has_duration = container.duration and container.format.name not in FORMATS_WITHOUT_DURATION
    duration = container.duration / 1e6 if has_duration else _measured_s(container, origin, video or audio)
    if duration > options.max_duration_s:
        raise FileProblem("too_long", f"{duration:.0f} s is over clips.max_duration_s ({options.max_duration_s:g})")
    facts = FileFacts(duration_s=duration)
    if video is not None:
        context = video.codec_context
        if context.width * context.height > options.max_pixels:
            size = f"{context.width} x {context.height}"
            raise FileProblem("bomb", f"{size} pixels is over download.max_pixels ({options.max_pixels})")
        context.thread_count = 1  # each core has a decoder process of its own
        rate = float(video.average_rate or video.guessed_rate or 0) or None
        facts = FileFacts(context.width, context.height, rate, duration)
    if audio is not None:
        audio.codec_context.thread_count = 1
    pixel_ratio = float((video.sample_aspect_ratio or 1) if video is not None else 1)
    pixel_ratio = pixel_ratio if 0.1 < pixel_ratio < 10 else 1.0
    return OpenFile(container, video, audio, origin, facts, pixel_ratio, channel_names)


def _measured_s(container: Any, origin_s: float, stream: Any) -> float:
    """The length in seconds of a file that does not state it (of a live recorder, for example), by its packets."""
    import av

    end_s = 0.0
    try:
        for packet in container.demux(stream):
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin_s)
        container.seek(0, backward=True)
    except av.FFmpegError as error:
        raise FileProblem(
            "undecodable", f"the file states no length, and cannot be read twice ({_ffmpeg_message(error)})"
        ) from None
    return end_s


def _ffmpeg_message(error: BaseException) -> str:
    """FFmpeg's message for an error, without the name of our temporary file."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
