"""Checks of a user's own instruction records: their form, their turns, and that every picture and sound decodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mmdata.score.preprocess import Preprocess
from training.data.conversations import Conversation, parse_record
from training.data.json_records import JsonRecord
from training.data.media_tensors import MediaSpec, decode_picture, decode_sound
from training.data.own_media import MediaPlaces, Place, is_embedded
from training.data.records import MAX_IMAGES, MAX_SOUNDS
from training.data.sample_reader import BadSample

_CHECKED_FILES = 1 << 16  # whose findings are remembered, since many records show one picture
_CHECK = MediaSpec(Preprocess(size=(32, 32)), audio_samples=1600)  # small: a check decodes a picture and scales it down


@dataclass(frozen=True, slots=True)
class Checked:
    """A record that was looked at: where its media lie, or why it is not used."""

    record: JsonRecord
    conversation: Conversation | None = None
    places: tuple[Place, ...] = ()
    problem: str | None = None
    is_bad: bool = False


class RecordChecker:
    """Says what is wrong with records; it decodes every medium once."""

    def __init__(self, places: MediaPlaces) -> None:
        self._places = places
        self._file = lru_cache(_CHECKED_FILES)(self._readable_file)

    def check(self, record: JsonRecord) -> Checked:
        """The record with the places of its media, or with its problem. Threads may call it."""
        if record.problem is not None:
            return Checked(record, problem=record.problem, is_bad=True)
        try:
            conversation = parse_record(record.value)
            if conversation is None:
                return Checked(record, problem="its answer is a picture, which no stage learns")
            _check_turns(conversation)
            places = [self._readable(name, is_picture=True) for name in conversation.images]
            places += [self._readable(name, is_picture=False) for name in conversation.sounds]
            return Checked(record, conversation, tuple(places))
        except KeyError as error:
            problem = f"the key {error} is missing"
        except (TypeError, AttributeError, IndexError) as error:
            problem = f"a value has a wrong type ({error})"
        except (ValueError, BadSample) as error:
            problem = str(error)
        return Checked(record, problem=problem, is_bad=True)

    def _readable(self, name: str, *, is_picture: bool) -> Place:
        if is_embedded(name):
            return self._decoded(name, is_picture)
        place, problem = self._file(name, is_picture)
        if problem is not None:
            raise ValueError(problem)
        return place

    def _readable_file(self, name: str, is_picture: bool) -> tuple[Place, str | None]:
        try:
            return self._decoded(name, is_picture), None
        except (ValueError, BadSample) as error:
            return Place(0), str(error)

    def _decoded(self, name: str, is_picture: bool) -> Place:
        """The place of a medium that can be decoded. Raises ValueError or BadSample."""
        place = self._places.find(name)
        data = self._places.read(name, place)
        shown = "in the record" if is_embedded(name) else repr(name[:80])
        try:
            _ = decode_picture(data, _CHECK) if is_picture else decode_sound(data, _CHECK.audio_samples)
        except BadSample as error:
            raise ValueError(f"the {'picture' if is_picture else 'sound'} {shown}: {error}") from None
        return place


def _check_turns(conversation: Conversation) -> None:
    """Raise ValueError unless user and assistant take turns up to an answer, with few enough media."""
    roles = [turn.role for turn in conversation.turns]
    asked = roles[1:] if roles[:1] == ["system"] else roles
    if asked != ["user", "assistant"] * (len(asked) // 2) or not asked:
        raise ValueError(f"the turns are {', '.join(roles) or 'none'}; user and assistant take turns, to an answer")
    if not all(turn.text.strip() for turn in conversation.turns if turn.role == "assistant"):
        raise ValueError("an answer is empty")
    for kind, media, most in (
        ("pictures", conversation.images, MAX_IMAGES),
        ("sounds", conversation.sounds, MAX_SOUNDS),
    ):
        if len(media) > most:
            raise ValueError(f"{len(media)} {kind}, over {most}")
