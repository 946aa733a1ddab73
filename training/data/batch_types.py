"""The batches that training steps take: media-text pairs, or rows of tokens with media in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from training.data.text_codec import IGNORED


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B media-text pairs for contrastive training. The first S are real samples, the rest is padding."""

    text: Tensor  # int64 B,T; tokens of the captions
    weight: Tensor  # float32 B; 1 for a real sample, 0 for padding
    group: Tensor  # int64 B; a hash of the caption, so equal captions have equal groups
    is_clip: Tensor  # bool S; whether the sample's pictures are frames of a clip
    picture: Tensor | None  # uint8 M,3,H,W; pictures and frames of all samples, or None if there are none
    picture_of: Tensor  # int64 M; index of the sample that each picture belongs to
    sound: Tensor | None  # float32 N,L; 16 kHz, or None if there is none
    sound_of: Tensor  # int64 N; index of the sample that each sound belongs to
    uids: list[str]  # of the S samples
    read: int  # S
    bad: int  # unreadable samples that were replaced
    consumed: int = 0  # the loader's state after this batch, in samples; 0 for a batch that no loader made

    @property
    def rows(self) -> int:
        """B."""
        return len(self.weight)

    def moved_by(self, rows: int) -> PairBatch:
        """The same as a piece of a larger batch, behind `rows` pairs; they must be real ones."""
        return replace(self, picture_of=self.picture_of + rows, sound_of=self.sound_of + rows)

    def split(self, size: int) -> Iterator[PairBatch]:
        """Runs of at most `size` samples, each with its own media; counts and uids stay those of the whole batch."""
        for start in range(0, len(self.weight), size):
            run = slice(start, start + size)
            pictures, sounds = (_run(owners, start, start + size) for owners in (self.picture_of, self.sound_of))
            yield replace(
                self,
                text=self.text[run],
                weight=self.weight[run],
                group=self.group[run],
                is_clip=self.is_clip[run],
                picture=_selected(self.picture, pictures),
                picture_of=self.picture_of[pictures] - start,
                sound=_selected(self.sound, sounds),
                sound_of=self.sound_of[sounds] - start,
            )


@dataclass(frozen=True, slots=True)
class PlacedMedia:
    """M media of one kind, and where they belong in the rows of a batch."""

    data: Tensor | None  # uint8 M,3,H,W for pictures, float32 M,S for sound at 16 kHz; None if M is 0
    row: Tensor  # int64 M; index of the row
    segment: Tensor  # int64 M; number of the sample within its row, from 1
    start: Tensor  # int64 M; column of the medium's first token
    known_most_per_row: int | None = None  # `most_per_row`, counted before the batch was moved to a device

    @property
    def most_per_row(self) -> int:
        """The most media that a row has; 0 without any."""
        if self.known_most_per_row is not None:
            return self.known_most_per_row
        return int(self.row.bincount().max()) if len(self.row) else 0

    def moved_by(self, rows: int) -> PlacedMedia:
        """The same media, each `rows` rows further down."""
        return replace(self, row=self.row + rows)

    def of_rows(self, first: int, stop: int) -> PlacedMedia:
        """The media of rows `first` to `stop`, with rows counted from `first`."""
        chosen = _run(self.row, first, stop)
        return PlacedMedia(
            _selected(self.data, chosen), self.row[chosen] - first, self.segment[chosen], self.start[chosen]
        )


@dataclass(frozen=True, slots=True)
class RowBatch:
    """R rows of L tokens for the language model; a row holds one or more samples."""

    input_ids: Tensor  # int64 R,L; padding and the columns of media hold the padding token
    labels: Tensor  # int64 R,L; IGNORED where nothing is learned
    position_ids: Tensor  # int64 R,L; they begin at 0 for each sample
    segment: Tensor  # int64 R,L; number of the sample within its row, from 1; 0 is padding
    picture: PlacedMedia  # media of all rows
    sound: PlacedMedia  # media of all rows
    uids: list[str]  # of the samples, in the order of rows
    read: int  # samples in the rows
    bad: int  # unreadable samples that were replaced
    cut_tokens: int  # text tokens that were cut off because they did not fit
    consumed: int = 0  # the loader's state after this batch, in samples; 0 for a batch that no loader made
    known_learned: int | None = None  # `most_learned`, counted before the batch was moved to a device

    @property
    def most_learned(self) -> int:
        """The most tokens that are learned; fewer where media were taken out of a batch on a device."""
        return self.known_learned if self.known_learned is not None else self._learned()

    def _learned(self) -> int:
        return int((self.labels[:, 1:] != IGNORED).sum())

    @property
    def media(self) -> dict[str, PlacedMedia]:
        """By kind."""
        return {"picture": self.picture, "sound": self.sound}

    @property
    def most_documents(self) -> int:
        """The most places where position ids begin: at each sample, and at each row's padding."""
        return self.read + len(self.input_ids)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.input_ids)

    def cut_to(self, length: int) -> RowBatch:
        """The first columns; what is cut off must be padding."""
        names = ("input_ids", "labels", "position_ids", "segment")
        return replace(self, **{name: getattr(self, name)[:, :length].contiguous() for name in names})

    def moved_by(self, rows: int) -> RowBatch:
        """The same as a piece of a larger batch, behind `rows` rows."""
        return replace(self, picture=self.picture.moved_by(rows), sound=self.sound.moved_by(rows))

    def split(self, size: int) -> Iterator[RowBatch]:
        """Runs of at most `size` rows, each with its own media; counts and uids stay those of the whole batch."""
        for start in range(0, len(self.input_ids), size):
            run = slice(start, start + size)
            yield replace(
                self,
                input_ids=self.input_ids[run],
                labels=self.labels[run],
                position_ids=self.position_ids[run],
                segment=self.segment[run],
                picture=self.picture.of_rows(start, start + size),
                sound=self.sound.of_rows(start, start + size),
            )


Batch = PairBatch | RowBatch
BatchType = TypeVar("BatchType", bound=PairBatch | RowBatch)

# FSDP2 casts a model's inputs to its mixed precision, and looks for tensors in registered classes only.
for _batch_class in (PairBatch, PlacedMedia, RowBatch):
    torch.export.register_dataclass(_batch_class)


def to_device(batch: BatchType, device: torch.device) -> BatchType:
    """A batch with its tensors on the device; the copy runs beside the computation.

    What sizes of tensors depend on is counted first, so that nobody waits for the device to count it. Split a batch
    before it is moved, for the same reason.
    """
    if device.type == "cpu":
        return batch
    moved: BatchType = map_tensors(batch, lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
    return moved


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A batch with each of its tensors changed, once its counts are known."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, PairBatch | PlacedMedia | RowBatch):
        changed = {field.name: map_tensors(getattr(value, field.name), change) for field in fields(value)}
        if isinstance(value, RowBatch):
            changed["known_learned"] = value.most_learned
        if isinstance(value, PlacedMedia):
            changed["known_most_per_row"] = value.most_per_row
        return replace(value, **changed)
    return value


def _run(owners_M: Tensor, first: int, stop: int) -> slice:
    """The media whose owners are `first` to `stop`. Media stand in the order of their owners, so a view is enough."""
    return slice(int((owners_M < first).sum()), int((owners_M < stop).sum()))


def _selected(data: Tensor | None, chosen: slice) -> Tensor | None:
    """The chosen media; None if there are none."""
    return data[chosen] if data is not None and chosen.stop > chosen.start else None
