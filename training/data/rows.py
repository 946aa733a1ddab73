"""Samples in tokens, several of them a row, as tensors for the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.data.examples import Batch, Example
from training.data.tokens import IGNORED, Encoded


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples become rows of the language model.

    Args:
        picture_tokens, sound_tokens: places that one medium takes in a row; 0: media stand beside the text.
        pack_length: tokens of a row.
        max_text_tokens: a sample's text is cut there.
        packed: several samples a row.
        template: turns are written as a conversation; else as a bare caption.
    """

    picture_tokens: int
    sound_tokens: int
    pack_length: int
    max_text_tokens: int
    packed: bool
    template: bool

    def media_tokens(self, media: np.ndarray) -> np.ndarray:
        return media @ np.array([self.picture_tokens, self.sound_tokens])


@dataclass(frozen=True, slots=True)
class Row:
    """Samples that share a row, in tokens.

    Args:
        bad: unreadable samples that others stand in for.
        cut_tokens: text that found no place.
    """

    examples: list[Example]
    encoded: list[Encoded]
    bad: int
    cut_tokens: int


def lay_out(rows: Sequence[Row], count: int, length: int, layout: Layout, pad: int) -> Batch:
    """Rows as tensors; position ids begin again at each sample, and there is no attention mask.

    Args:
        count: rows of the result; the further ones are padding.

    Returns:
        input_ids, labels, position_ids, segment: int64 R,L (segment: number of the sample in its row, from 1; 0 is
        padding); picture: uint8 M,3,H,W with picture_row, picture_segment, picture_start (column of its first
        token); sound the same; media's own columns hold `pad` and are never learned.
    """
    ids = np.full((count, length), pad, np.int64)
    labels = np.full((count, length), IGNORED, np.int64)
    segment = np.zeros((count, length), np.int64)
    position = np.zeros((count, length), np.int64)
    places: dict[str, list[tuple[int, int, int]]] = {"picture": [], "sound": []}
    tensors: dict[str, list[torch.Tensor]] = {"picture": [], "sound": []}
    for at, row in enumerate(rows):
        column = 0
        for number, (example, encoded) in enumerate(zip(row.examples, row.encoded, strict=True), 1):
            media = [("picture", one) for one in (example.media.pictures if example.media.pictures is not None else [])]
            media += [("sound", example.media.sound)] if example.media.sound is not None else []
            start, written = column, 0
            for (kind, tensor), text_at in zip(media, encoded.media_at, strict=True):
                column = _write(ids, labels, at, column, encoded, written, text_at)
                written = text_at
                places[kind].append((at, number, column))
                tensors[kind].append(tensor)
                column += layout.picture_tokens if kind == "picture" else layout.sound_tokens
            column = _write(ids, labels, at, column, encoded, written, len(encoded.ids))
            labels[at, start:column][:1] = IGNORED  # what stands before it is of another sample
            segment[at, start:column] = number
            position[at, start:column] = np.arange(column - start)
        position[at, column:] = np.arange(length - column)
    for at in range(len(rows), count):
        position[at] = np.arange(length)
    batch: Batch = {name: torch.from_numpy(value) for name, value in (("input_ids", ids), ("labels", labels))}
    batch |= {"position_ids": torch.from_numpy(position), "segment": torch.from_numpy(segment)}
    for kind, found in places.items():
        table = torch.tensor(found, dtype=torch.long).reshape(-1, 3)
        batch[kind] = torch.stack(tensors[kind]) if found else None
        batch |= {f"{kind}_row": table[:, 0], f"{kind}_segment": table[:, 1], f"{kind}_start": table[:, 2]}
    examples = [example for row in rows for example in row.examples]
    batch["uids"] = [example.uid for example in examples]
    batch["read"] = len(examples)
    batch["bad"] = sum(row.bad for row in rows)
    batch["cut_tokens"] = sum(row.cut_tokens for row in rows)
    return batch


def _write(ids: np.ndarray, labels: np.ndarray, row: int, column: int, encoded: Encoded, start: int, stop: int) -> int:
    end = column + stop - start
    ids[row, column:end] = encoded.ids[start:stop]
    labels[row, column:end] = encoded.labels[start:stop]
    return end
