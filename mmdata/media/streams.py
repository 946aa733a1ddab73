"""Chooses which picture track and which sound track of a file are read."""

from __future__ import annotations

from typing import Any


def choose_stream(container: Any, kind: str) -> Any:
    """The track that a player would show or play; None if there is none that can be decoded.

    The order is that of FFmpeg: a track that the file marks as default goes first, then the one with most pixels or
    channels, then the first one. Covers are never taken, and tracks made for a few viewers only if there is no other.

    Args:
        kind: `video` or `audio`.
    """
    readable = [stream for stream in tracks(container, kind) if _is_readable(stream)]
    return max(readable, key=_rank, default=None)


def tracks(container: Any, kind: str) -> list[Any]:
    """All tracks of a kind except pictures that are attached to the file, such as covers and chapter thumbnails."""
    from av.stream import Disposition

    streams = container.streams.video if kind == "video" else container.streams.audio
    return [stream for stream in streams if not stream.disposition & Disposition.attached_pic]


def _is_readable(stream: Any) -> bool:
    """Whether FFmpeg has a decoder for the track, and knows its size or its channels.

    It does not know them of a track that a transport stream announces, but has no packet of.
    """
    context = stream.codec_context
    if context is None:
        return False
    return bool(context.width and context.height) if stream.type == "video" else bool(context.channels)


def _rank(stream: Any) -> tuple[bool, bool, int]:
    """How soon a track is taken; of two equal ones, `max` takes the first."""
    from av.stream import Disposition

    for_a_few = (
        Disposition.comment
        | Disposition.hearing_impaired
        | Disposition.visual_impaired
        | Disposition.descriptions
        | Disposition.clean_effects  # music and noises without the voices
        | Disposition.dependent  # is heard or seen together with another track only
    )
    context = stream.codec_context
    size = context.width * context.height if stream.type == "video" else context.channels
    return not stream.disposition & for_a_few, bool(stream.disposition & Disposition.default), size
