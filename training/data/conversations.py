"""Instruction records as conversations: the three forms parsed to turns, and the media that the turns show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from mmdata.samples import sample_key
from training.data.tensors import evenly
from training.data.tokens import MEDIUM, Turn, clean

_SHOWN = f"{MEDIUM}\n"  # as LLaVA writes it: the three forms of a record are one conversation
_PATH = re.compile(
    r"tar://(?P<uid>[0-9a-f]{32})(?:_r(?P<copy>\d+))?\.(?P<ext>[a-z.0-9]+)::shards/(?P<shard>[^/:]+\.tar)"
)
_MARKER = re.compile(f"{MEDIUM}\n?")


@dataclass(frozen=True, slots=True)
class Member:
    """Where a path leads."""

    uid: str
    copy: int
    ext: str
    shard: str

    @property
    def key(self) -> str:
        return sample_key(self.uid, self.copy)


def member_of(path: str) -> Member | None:
    """What a path of a record names; None: it is no path into a shard."""
    found = _PATH.fullmatch(path)
    return None if found is None else Member(found["uid"], int(found["copy"] or 0), found["ext"], found["shard"])


@dataclass(frozen=True, slots=True)
class Conversation:
    """A record's turns, and its pictures and sounds in their order: paths into shards or data URIs.

    In the turns each MEDIUM stands for one of them, pictures first.
    """

    turns: list[Turn]
    images: list[str] = field(default_factory=list)
    sounds: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Of the samples in shards that they are of, each once, in the order in which they are first named."""
        members = (member_of(path) for path in (*self.images, *self.sounds))
        return list(dict.fromkeys(member.key for member in members if member is not None))


def parse_record(record: dict[str, Any]) -> Conversation | None:
    """Any of the three forms (record, LLaVA, chat). None: its answer is a picture, which no text loss can learn.

    Raises:
        ValueError: it has none of the forms.
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
        asked = Turn("user", _SHOWN * (len(images) + len(sounds)) + clean(record["instruction"]))
        return Conversation([asked, Turn("assistant", clean(record["output"]))], images, sounds)
    raise ValueError("neither `instruction` nor `conversations` nor `messages` is there")


def _llava(record: dict[str, Any]) -> Conversation | None:
    images = record.get("image") or []
    images = [images] if isinstance(images, str) else list(images)
    sounds = record.get("audio") or []
    sounds = [sounds] if isinstance(sounds, str) else list(sounds)
    turns, marked = [], ""
    for one in record["conversations"]:
        text = clean(one["value"])
        marked += "".join(re.findall("<image>|<audio>", text))
        text = text.replace("<image>", MEDIUM).replace("<audio>", MEDIUM)
        if one["from"] == "gpt" and MEDIUM in text:
            return None
        turns.append(Turn("assistant" if one["from"] == "gpt" else "user", text))
    for marker, media in (("<image>", images), ("<audio>", sounds)):
        if (places := marked.count(marker)) != len(media):
            raise ValueError(f"{places} {marker} markers for {len(media)} of them")
    _check_order(marked.rfind("<image>"), marked.find("<audio>"))
    return Conversation(turns, images, sounds)


def _chat(record: dict[str, Any]) -> Conversation | None:
    turns: list[Turn] = []
    media: list[tuple[str, str]] = []
    for message in record["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        shown = [(part["type"], part[part["type"]]) for part in parts if part["type"] in ("image", "audio")]
        if message["role"] == "assistant" and shown:
            return None
        media += shown
        text = "".join(clean(part["text"]) if part["type"] == "text" else _SHOWN for part in parts)
        turns.append(Turn("assistant" if message["role"] == "assistant" else "user", text))
    kinds = "".join(kind[0] for kind, _ in media)
    _check_order(kinds.rfind("i"), kinds.find("a"))
    images = [path for kind, path in media if kind == "image"]
    return Conversation(turns, images, [path for kind, path in media if kind == "audio"])


def _check_order(last_picture: int, first_sound: int) -> None:
    """Raise ValueError where a sound stands before a picture: in a row, sounds come last."""
    if 0 <= first_sound < last_picture:
        raise ValueError("a sound stands before a picture; pictures come first")


def thinned(conversation: Conversation, frames: int) -> Conversation:
    """The conversation with at most so many frames of its clips together, evenly spaced, one of each at least."""
    of: dict[str, list[int]] = {}
    for at, path in enumerate(conversation.images):
        member = member_of(path)
        of.setdefault(str(at) if member is None else member.key, []).append(at)
    each = max(1, frames // max(1, len(of)))
    kept = {at for places in of.values() for at in evenly(places, each)}
    if len(kept) == len(conversation.images):
        return conversation
    stays = iter([at in kept for at in range(len(conversation.images))] + [True] * len(conversation.sounds))
    turns = [
        Turn(turn.role, _MARKER.sub(lambda found: found[0] if next(stays) else "", turn.text))
        for turn in conversation.turns
    ]
    return Conversation(turns, [conversation.images[at] for at in sorted(kept)], conversation.sounds)
