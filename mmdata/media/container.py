"""An open video or recording: which streams of it are read, where its time begins, and what it may not be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,flac,wav,mp3,aac,amr,aiff,w64,caf"
"""Demuxers that may open a file: none that follows names in it to other files or hosts (HLS, DASH, concat, …)."""

GUESSED = frozenset({"mp3", "aac", "amr"})
"""Formats whose length FFmpeg guesses by their bit rate."""

MAX_STREAMS = 64


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
    duration_s: float = 0.0
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
class OpenFile:
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


@contextmanager
def opened(path: Path, kind: str, sound: bool, limits: Limits) -> Iterator[OpenFile]:
    """Open a fetched file, and nothing that it may name.

    Args:
        kind: `video` or `audio`.
        sound: whether a video's sound is wanted.

    Raises:
        FileProblem: it is none of that kind, or over a limit.
    """
    import av

    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path), options=options)
    except (av.FFmpegError, ValueError) as error:
        raise FileProblem("undecodable", f"cannot be opened ({_said(error)})") from None
    with container:
        yield _opened(container, kind, sound, limits)


def _opened(container: Any, kind: str, sound: bool, limits: Limits) -> OpenFile:
    from av.stream import Disposition

    if len(container.streams) > MAX_STREAMS:
        raise FileProblem("bomb", f"the file has {len(container.streams)} streams, more than {MAX_STREAMS}")
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    video = pictures[0] if pictures and kind == "video" else None
    audio = container.streams.audio[0] if container.streams.audio and (kind == "audio" or sound) else None
    if kind == "video" and video is None:
        raise FileProblem("no_video", "the file has no moving picture")
    if kind == "audio" and audio is None:
        raise FileProblem("no_sound", "the file has no sound")
    start = (container.start_time or 0) / 1e6
    origin = start if start > 0 else 0.0
    known = container.duration and container.format.name not in GUESSED
    duration = container.duration / 1e6 if known else _measured_s(container, origin, video or audio)
    if duration > limits.max_duration_s:
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
    return OpenFile(container, video, audio, origin, facts, ratio if 0.1 < ratio < 10 else 1.0)


def _measured_s(container: Any, origin_s: float, stream: Any) -> float:
    """The length of a file that does not say it, as a recorder leaves it: by the times of its packets."""
    import av

    end_s = 0.0
    try:
        for packet in container.demux(stream):
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin_s)
        container.seek(0, backward=True)
    except av.FFmpegError as error:
        raise FileProblem("undecodable", f"says no length, and cannot be read twice ({_said(error)})") from None
    return end_s


def _said(error: BaseException) -> str:
    """What FFmpeg says of a fault, without the name of our temporary file."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
