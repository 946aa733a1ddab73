"""Instruction records of all three forms, parsed to the turns of a conversation and the media that they show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from mmdata.samples import sample_key
from training.data.media_tensors import evenly_spaced
from training.data.text_codec import MEDIA_PLACEHOLDER, Role, Turn, without_placeholders

_MEDIUM_LINE = f"{MEDIA_PLACEHOLDER}\n"  # as LLaVA writes it, so that all three forms give one conversation
_MEMBER_PATH = re.compile(
    r"tar://(?P<uid>[0-9a-f]{32})(?:_r(?P<copy>\d+))?\.(?P<ext>[a-z.0-9]+)::shards/(?P<shard>[^/:]+\.tar)"
)
_ROLES: dict[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
_PLACEHOLDER_LINE = re.compile(f"{MEDIA_PLACEHOLDER}\n?")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a shard that a record's path names."""

    uid: str
    copy: int
    ext: str
    shard: str

    @property
    def key(self) -> str:
        """The sample's key in its shard."""
        return sample_key(self.uid, self.copy)


def parse_member_path(path: str) -> Member | None:
    """The member that a path names; None if it is not a path into a shard."""
    match = _MEMBER_PATH.fullmatch(path)
    return None if match is None else Member(match["uid"], int(match["copy"] or 0), match["ext"], match["shard"])


@dataclass(frozen=True, slots=True)
class Conversation:
    """A record's turns, and its media in the order in which the turns show them, pictures before sounds."""

    turns: list[Turn]  # each MEDIA_PLACEHOLDER in them stands for the next medium
    images: list[str] = field(default_factory=list)  # paths into shards (a user's own: of files), data URIs or base64
    sounds: list[str] = field(default_factory=list)  # likewise

    @property
    def keys(self) -> list[str]:
        """Keys of the samples in shards that the media come from, each once, in order of first use."""
        members = (parse_member_path(path) for path in (*self.images, *self.sounds))
        return list(dict.fromkeys(member.key for member in members if member is not None))


def parse_record(record: dict[str, Any]) -> Conversation | None:
    """The conversation of a record in any form: record, LLaVA, or chat with the parts of OpenAI's API or of Qwen-VL.

    Returns: None if the answer is a picture, which no text loss can learn.
    Raises ValueError: the record has none of the forms, or its media do not match its text.
    """
    if "conversations" in record:
        return _llava(record)
    if "messages" in record:
        return _chat(record)
    if "instruction" in record:
        if record.get("output") is None:
            return None
        images = [record[name] for name in ("input_image", "reference_image") if record.get(name)]
        images += record.get("input_video") or []
        sounds = [record["input_audio"]] if record.get("input_audio") else []
        asked = record["instruction"] + (f"\n{record['input']}" if record.get("input") else "")  # `input` of Alpaca
        prompt = _MEDIUM_LINE * (len(images) + len(sounds)) + without_placeholders(asked)
        turns = [Turn("user", prompt), Turn("assistant", without_placeholders(record["output"]))]
        return Conversation(turns, images, sounds)
    raise ValueError("neither `instruction` nor `conversations` nor `messages` is there")


def _llava(record: dict[str, Any]) -> Conversation | None:
    images, sounds = _as_list(record.get("image")), _as_list(record.get("audio"))
    turns, markers = [], ""
    for message in record["conversations"]:
        text = without_placeholders(message["value"])
        markers += "".join(re.findall("<image>|<audio>", text))
        text = text.replace("<image>", MEDIA_PLACEHOLDER).replace("<audio>", MEDIA_PLACEHOLDER)
        role = _role(message["from"])
        if role == "assistant" and MEDIA_PLACEHOLDER in text:
            return None
        turns.append(Turn(role, text))
    for marker, media in (("<image>", images), ("<audio>", sounds)):
        if (count := markers.count(marker)) != len(media):
            raise ValueError(f"{count} {marker} markers for {len(media)} of them")
    _check_order(markers.rfind("<image>"), markers.find("<audio>"))
    return Conversation(turns, images, sounds)


def _as_list(media: str | list[str] | None) -> list[str]:
    return [media] if isinstance(media, str) and media else list(media or [])


def _chat(record: dict[str, Any]) -> Conversation | None:
    turns: list[Turn] = []
    media: list[tuple[str, str]] = []  # (kind, path)
    for message in record["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        shown = [_medium(part) for part in parts if part["type"] != "text"]
        role = _role(message["role"])
        if role == "assistant" and shown:
            return None
        media += shown
        texts = [without_placeholders(part["text"]) if part["type"] == "text" else _MEDIUM_LINE for part in parts]
        turns.append(Turn(role, "".join(texts)))
    kinds = "".join(kind[0] for kind, _ in media)
    _check_order(kinds.rfind("i"), kinds.find("a"))
    images = [path for kind, path in media if kind == "image"]
    return Conversation(turns, images, [path for kind, path in media if kind == "audio"])


def _medium(part: dict[str, Any]) -> tuple[str, str]:
    """The kind (image or audio) and the path or data URI of a part of a chat message."""
    kind = part["type"]
    if kind in ("image", "audio"):
        return kind, part[kind]
    if kind == "image_url":
        address = part["image_url"]
        return "image", address["url"] if isinstance(address, dict) else address
    if kind == "input_audio":
        sound = part["input_audio"]
        return "audio", f"data:audio/{sound['format']};base64,{sound['data']}"
    raise ValueError(f"a part of type {kind!r}; the types are text, image, image_url, audio, input_audio")


def _role(name: str) -> Role:
    """The role that a form calls so. Raises ValueError: it is none of them."""
    if name not in _ROLES:
        raise ValueError(f"the role {name!r}; the roles are {', '.join(_ROLES)}")
    return _ROLES[name]


def _check_order(last_picture: int, first_sound: int) -> None:
    """Raise ValueError if a sound comes before a picture: in the rows of a batch, sounds come last."""
    if 0 <= first_sound < last_picture:
        raise ValueError("a sound comes before a picture; pictures come first")


def with_fewer_frames(conversation: Conversation, frames: int) -> Conversation:
    """The conversation with at most `frames` frames of all its clips together, evenly spaced, and one of each at least.

    The placeholders of the frames that are left out go too. Embedded pictures (data URIs) all stay.
    """
    clips: dict[str, list[int]] = {}  # positions of the frames of each clip; an embedded picture is a clip of its own
    for at, path in enumerate(conversation.images):
        member = parse_member_path(path)
        clips.setdefault(str(at) if member is None else member.key, []).append(at)
    frames_per_clip = max(1, frames // max(1, len(clips)))
    kept = {at for positions in clips.values() for at in evenly_spaced(positions, frames_per_clip)}
    if len(kept) == len(conversation.images):
        return conversation
    keeps = iter([at in kept for at in range(len(conversation.images))] + [True] * len(conversation.sounds))
    turns = [
        Turn(turn.role, _PLACEHOLDER_LINE.sub(lambda match: match[0] if next(keeps) else "", turn.text))
        for turn in conversation.turns
    ]
    return Conversation(turns, [conversation.images[at] for at in sorted(kept)], conversation.sounds)
