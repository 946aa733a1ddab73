"""A user's own instruction records as a batch reader reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from training.data.conversations import Conversation, parse_record
from training.data.examples import Example
from training.data.media_tensors import EncodedMedia, MediaSpec, encoded_picture, encoded_sound
from training.data.own_media import Place
from training.data.own_records import OwnRecords
from training.data.records import MediaLimits
from training.data.sample_reader import BadSample
from training.data.text_codec import Turn


class OwnInstructions:
    """The records of one split of an own file.

    Args: limits: records with more pictures, or with sound that the model does not hear, are left out.
    """

    def __init__(
        self, records: OwnRecords, split: Literal["train", "validation"], spec: MediaSpec, limits: MediaLimits
    ) -> None:
        self.records, self._spec = records, spec
        index = records.table(split)
        fits = (index["images"] <= limits.pictures) & (limits.hears | (index["sounds"] == 0))
        self._index = index if bool(fits.all()) else index[fits]
        self._places = records.table("places")
        over_limits = len(index) - len(self._index)
        self.left_out = {"own record": over_limits} if over_limits else {}

    def __len__(self) -> int:
        return len(self._index)

    def tokens(self, indices: np.ndarray, passes: np.ndarray | int = 0) -> np.ndarray:
        """Estimated tokens of text, the same in every pass: int64 N."""
        return self._index["tokens"][indices].astype(np.int64)

    def media(self, indices: np.ndarray) -> np.ndarray:
        """Pictures and sounds of each record: int64 N,2."""
        return np.stack([self._index["images"][indices], self._index["sounds"][indices]], 1).astype(np.int64)

    def expect(self, indices: Sequence[int]) -> None:
        """Nothing is asked for ahead: the files are on a local disk."""

    def read(self, index: int, pass_number: int = 0) -> Example:
        """Raises BadSample if a medium is gone or broken since it was checked, DataError if the file was edited."""
        conversation = self._conversation(index)
        media = self._encoded_media(index, conversation)
        try:
            uid = f"{self.records.id}:{self._index[index]['line']}"
            return Example(uid, conversation.turns, media.read(self._spec.features))
        except BadSample as error:
            raise self._bad(index, error) from None

    def encoded_media(self, index: int) -> EncodedMedia:
        """A record's media before they are decoded. Raises as `read`."""
        return self._encoded_media(index, self._conversation(index))

    def turns(self, index: int, pass_number: int = 0) -> list[Turn]:
        """A record's text, without reading its media."""
        return self._conversation(index).turns

    def texts(self, index: int) -> list[str]:
        """The texts of a record's turns."""
        return [turn.text for turn in self.turns(index)]

    def _encoded_media(self, index: int, conversation: Conversation) -> EncodedMedia:
        names = [*conversation.images, *conversation.sounds]
        first = int(self._index[index]["first"])
        try:
            data = [
                self.records.places.read(name, Place(*map(int, place)))
                for name, place in zip(names, self._places[first : first + len(names)].tolist(), strict=True)
            ]
        except ValueError as error:
            raise self._bad(index, error) from None
        pictures = [encoded_picture(picture, self._spec) for picture in data[: len(conversation.images)]]
        sounds = [encoded_sound(sound, self._spec) for sound in data[len(conversation.images) :]]
        return EncodedMedia(pictures, sounds[0] if sounds else None)

    def _bad(self, index: int, error: Exception) -> BadSample:
        return BadSample(f"{self.records.path}: line {self._index[index]['line']}: {error}")

    def _conversation(self, index: int) -> Conversation:
        conversation = parse_record(self.records.record(self._index[index]))
        assert conversation is not None, "the index holds only records with a text answer"
        return conversation
