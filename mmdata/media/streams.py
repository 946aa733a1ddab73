"""Chooses which picture track and which sound track of a file are read."""

from __future__ import annotations

from typing import Any

from mmdata.media.downmix import own_channel_names


def choose_picture(container: Any) -> Any:
    """The picture track that a player would show; None if there is none that can be decoded.

    The order is that of FFmpeg: a track that the file marks as default goes first, then the one with most pixels or
    channels, then the first one. Covers are never taken, and tracks made for a few viewers only if there is no other.
    """
    sizes = {}
    for stream in tracks(container, "video"):
        context = stream.codec_context
        if context is not None and context.width and context.height:
            sizes[stream] = context.width * context.height
    return max(sizes, key=lambda stream: _rank(stream, sizes[stream]), default=None)


def choose_sound(container: Any, picture: Any = None) -> tuple[Any, tuple[str, ...]]:
    """The sound track that a player would play, and the names of its channels; None if there is none to decode.

    The order is that of `choose_picture`. A track of a transport stream that is announced but empty has no channels.

    Args:
        picture: the picture track that is shown; the sound of another programme of a broadcast is not taken.
    """
    decodable = (stream for stream in tracks(container, "audio") if stream.codec_context is not None)
    channels = {stream: names for stream in decodable if (names := own_channel_names(stream))}
    if picture is not None and len(tracks(container, "video")) > 1 and container.format.name == "mpegts":
        same_programme = container.streams.best("audio", related=picture)
        if same_programme in channels:
            return same_programme, channels[same_programme]
    chosen = max(channels, key=lambda stream: _rank(stream, len(channels[stream])), default=None)
    return chosen, channels.get(chosen, ())


def tracks(container: Any, kind: str) -> list[Any]:
    """All tracks of a kind except pictures that are attached to the file, such as covers and chapter thumbnails."""
    from av.stream import Disposition

    streams = container.streams.video if kind == "video" else container.streams.audio
    return [stream for stream in streams if not stream.disposition & Disposition.attached_pic]


def _rank(stream: Any, size: int) -> tuple[bool, bool, int]:
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
    return not stream.disposition & for_a_few, bool(stream.disposition & Disposition.default), size
