"""Which samples share a row of the language model, and how rows are laid out as tensors."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from training.data.batch_types import PlacedMedia, RowBatch
from training.data.examples import Example
from training.data.text_codec import IGNORED, Encoded, truncated


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples become rows of the language model."""

    picture_tokens: int  # columns that one medium takes in a row; 0: media stay outside the rows
    sound_tokens: int  # columns that one medium takes in a row; 0: media stay outside the rows
    pack_length: int  # tokens of a row
    max_text_tokens: int  # a sample's text is cut there
    packed: bool  # whether several samples share a row
    template: bool  # whether turns are written as a conversation, or the last one as a bare caption

    def media_tokens(self, counts: np.ndarray) -> np.ndarray:
        """Columns that media take. Args: counts: int64 (...,2); pictures and sounds."""
        return counts @ np.array([self.picture_tokens, self.sound_tokens])


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Samples that share a row, in tokens."""

    examples: list[Example]
    encoded: list[Encoded]
    bad: int  # unreadable samples that were replaced
    cut_tokens: int  # text tokens that were cut off


@dataclass(slots=True)
class _MediaColumns:
    """Media of one kind, collected while rows are laid out."""

    tokens: int
    data: list[torch.Tensor] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)  # row, segment, start

    def placed(self) -> PlacedMedia:
        table = torch.tensor(self.places, dtype=torch.long).reshape(-1, 3)
        return PlacedMedia(torch.stack(self.data) if self.data else None, table[:, 0], table[:, 1], table[:, 2])


def cut_to(example: Example, encoded: Encoded, tokens: int, layout: Layout) -> tuple[Example, Encoded]:
    """An example with its text cut to `tokens` tokens; of a document, cut where a text ends, as `cut_document` does."""
    if not example.is_document:
        return example, truncated(encoded, tokens)  # the media of a caption or of a prompt all stay
    pictures, _ = example.media.counts
    cut = cut_document(encoded, tokens, pictures, layout)
    kept = None if example.media.pictures is None else example.media.pictures[: len(cut.media_at)]
    return replace(example, media=replace(example.media, pictures=kept)), cut


def cut_document(encoded: Encoded, tokens: int, pictures: int, layout: Layout) -> Encoded:
    """The longest beginning of a document that fits into a row, cut between its texts and pictures.

    A picture after which no text is left goes too. Only a document whose first text is too long is cut inside of it.

    Args:
        encoded: of the whole document.
        tokens: of text, at most.
        pictures: that were read; the document ends before the next one.
    """
    stops = [*encoded.media_at, len(encoded.ids)]
    end, kept = 0, 0  # text tokens, and pictures before the last kept text
    for before, stop in enumerate(stops[: pictures + 1]):
        if stop == end and before < len(encoded.media_at):
            continue  # no text between two pictures
        room = min(tokens, layout.pack_length - before * layout.picture_tokens)
        if stop <= room:
            end, kept = stop, before
            continue
        if all(label == IGNORED for label in encoded.labels[:end]) and room > end:
            end, kept = room, before
        break
    return Encoded(encoded.ids[:end], encoded.labels[:end], encoded.media_at[:kept])


def lay_out(rows: Sequence[EncodedRow], count: int, length: int, layout: Layout, pad: int) -> RowBatch:
    """Rows as tensors. There is no attention mask: position ids that begin again keep samples apart.

    Args:
        count: rows of the result; those beyond `rows` are padding.
        length: columns of the result.
        pad: the token in padding and in the columns of media.
    """
    ids = np.full((count, length), pad, np.int64)
    labels = np.full((count, length), IGNORED, np.int64)
    segments = np.zeros((count, length), np.int64)
    positions = np.tile(np.arange(length), (count, 1))
    pictures, sounds = _MediaColumns(layout.picture_tokens), _MediaColumns(layout.sound_tokens)
    for row_at, row in enumerate(rows):
        column = 0
        for segment, (example, encoded) in enumerate(zip(row.examples, row.encoded, strict=True), 1):
            media = [(pictures, picture) for picture in example.media.each_picture]
            media += [(sounds, example.media.sound)] if example.media.sound is not None else []
            start, written = column, 0
            # Each medium follows a piece of text, which may be empty; the last piece is followed by nothing.
            for text_end, medium in zip([*encoded.media_at, len(encoded.ids)], [*media, None], strict=True):
                stop = column + text_end - written
                ids[row_at, column:stop] = encoded.ids[written:text_end]
                labels[row_at, column:stop] = encoded.labels[written:text_end]
                column, written = stop, text_end
                if medium is not None:
                    columns, data = medium
                    columns.places.append((row_at, segment, column))
                    columns.data.append(data)
                    column += columns.tokens
            labels[row_at, start:column][:1] = IGNORED  # it would be predicted from the sample before it
            segments[row_at, start:column] = segment
            positions[row_at, start:column] = np.arange(column - start)
        positions[row_at, column:] = np.arange(length - column)
    return RowBatch(
        input_ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(positions),
        segment=torch.from_numpy(segments),
        picture=pictures.placed(),
        sound=sounds.placed(),
        uids=[example.uid for row in rows for example in row.examples],
        read=sum(len(row.examples) for row in rows),
        bad=sum(row.bad for row in rows),
        cut_tokens=sum(row.cut_tokens for row in rows),
    )


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: rows of samples whose lengths sum to at most `capacity`.

    Args: lengths: tokens of each sample; a length over `capacity` counts as `capacity`.
    Returns: Rows of indices into `lengths`, ascending in each row; rows are sorted by their first sample.
    """
    clipped = [min(max(length, 1), capacity) for length in lengths]
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for sample in sorted(range(len(clipped)), key=lambda at: (-clipped[at], at)):
        at = bisect_left(room, (clipped[sample], -1))
        if at == len(room):
            rows.append([])
            left, row = capacity, len(rows) - 1
        else:
            left, row = room.pop(at)
        rows[row].append(sample)
        if left - clipped[sample] > 0:
            insort(room, (left - clipped[sample], row))
    return sorted((sorted(row) for row in rows), key=lambda row: row[0])
