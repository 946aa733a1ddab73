"""Batches are split with their media, and pass through processes and FSDP2 whole."""

from __future__ import annotations

import pickle

import torch

from training.data.batch_types import PairBatch, PlacedMedia, RowBatch


def pairs() -> PairBatch:
    """Five samples, of which the last is padding: a picture, a clip of two frames, a sound, and text alone."""
    return PairBatch(
        text=torch.arange(10).view(5, 2),
        weight=torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]),
        group=torch.arange(5),
        is_clip=torch.tensor([False, True, False, False]),
        picture=torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2),
        picture_of=torch.tensor([0, 1, 1]),
        sound=torch.ones(1, 4),
        sound_of=torch.tensor([2]),
        uids=["a", "b", "c", "d"],
        read=4,
        bad=0,
        consumed=4,
    )


def rows() -> RowBatch:
    cells = torch.arange(12).view(3, 4)
    row, segment, start = torch.tensor([0, 2]), torch.tensor([1, 1]), torch.tensor([0, 3])
    picture = PlacedMedia(torch.arange(2).view(2, 1, 1, 1), row, segment, start)
    none = torch.empty(0, dtype=torch.long)
    return RowBatch(cells, cells, cells, cells, picture, PlacedMedia(None, none, none, none), ["a", "b", "c"], 3, 0, 0)


def test_pairs_are_split_with_their_media() -> None:
    first, second, third = pairs().split(2)
    assert [len(part.weight) for part in (first, second, third)] == [2, 2, 1]
    assert torch.equal(torch.cat([part.text for part in (first, second, third)]), pairs().text)
    assert first.picture_of.tolist() == [0, 1, 1] and first.sound is None
    assert second.picture is None and second.sound_of.tolist() == [0]
    assert (len(third.is_clip), third.picture, third.sound) == (0, None, None)


def test_rows_are_split_with_their_media() -> None:
    first, second = rows().split(2)
    assert torch.equal(first.input_ids, rows().input_ids[:2]) and torch.equal(second.segment, rows().segment[2:])
    assert first.picture.row.tolist() == second.picture.row.tolist() == [0], "rows are counted from the first"
    assert second.picture.start.tolist() == [3] and second.picture.data is not None
    assert int(second.picture.data) == 1
    assert next(rows().split(9)).media["picture"].row.tolist() == [0, 2]


def test_their_tensors_are_found_by_torch_and_by_pickle() -> None:
    """FSDP2 casts the tensors that it finds in a model's inputs; workers send batches to the trainer."""
    from torch.utils._pytree import tree_map

    def to_half(value: object) -> object:
        return value.half() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    cast = tree_map(to_half, pairs())
    assert isinstance(cast, PairBatch)
    assert cast.sound is not None
    assert (cast.sound.dtype, cast.weight.dtype, cast.text.dtype) == (torch.float16, torch.float16, torch.int64)
    assert cast.uids == pairs().uids
    assert isinstance(tree_map(to_half, rows()).picture, PlacedMedia)
    assert torch.equal(pickle.loads(pickle.dumps(rows())).picture.start, rows().picture.start)
