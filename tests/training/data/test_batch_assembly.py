"""Pieces of a batch become one batch, with media that point to their own samples."""

from __future__ import annotations

import pytest
import torch

from training.data.batch_assembly import BatchAssembly, GrowingTensor
from training.data.batch_types import PairBatch


def piece(first: int, pictures_of: list[int], count: int = 3) -> PairBatch:
    numbers = torch.arange(first, first + count)
    return PairBatch(
        text=numbers[:, None],
        weight=torch.ones(count),
        group=numbers,
        is_clip=numbers % 2 == 0,
        picture=(numbers[pictures_of].view(-1, 1, 1, 1).expand(-1, 3, 2, 2).to(torch.uint8) if pictures_of else None),
        picture_of=torch.tensor(pictures_of, dtype=torch.long),
        sound=None,
        sound_of=torch.tensor([], dtype=torch.long),
        uids=[str(number) for number in numbers.tolist()],
        read=count,
        bad=first,
    )


def test_media_belong_to_the_samples_they_came_with() -> None:
    assembly = BatchAssembly[PairBatch](3)
    for part in (piece(0, []), piece(3, [0, 2, 2, 2, 2]), piece(6, [1])):
        assembly.add(part)
    batch = assembly.batch()
    assert batch.text[:, 0].tolist() == batch.group.tolist() == list(range(9))
    assert batch.picture is not None
    assert batch.picture[:, 0, 0, 0].tolist() == [3, 5, 5, 5, 5, 7] == batch.picture_of.tolist()
    assert (batch.sound, len(batch.sound_of)) == (None, 0)
    assert batch.uids == [str(number) for number in range(9)]
    assert (batch.read, batch.bad) == (9, 9)


def test_pieces_need_not_live_until_the_batch_is_whole() -> None:
    part = piece(0, [0])
    assembly = BatchAssembly[PairBatch](2)
    assembly.add(part)
    part.text.zero_().sub_(1)
    assert assembly.batch().text.tolist() == [[0], [1], [2]], "copied, so the worker's memory is free"


@pytest.mark.parametrize("lengths", [[4, 4, 1], [1, 4, 9, 0, 30], [0, 5]])
def test_rows_of_any_number_are_appended(lengths: list[int]) -> None:
    column = GrowingTensor(len(lengths), pin=False)
    parts = [torch.randn(length, 2) for length in lengths]
    for rows in parts:
        column.append(rows)
    assert torch.equal(column.rows(), torch.cat(parts))


def test_equal_pieces_are_allocated_once() -> None:
    column = GrowingTensor(3, pin=False)
    column.append(torch.ones(4, 2))
    place = column.rows().data_ptr()
    column.append(torch.ones(4, 2))
    column.append(torch.ones(2, 2))
    assert (column.rows().data_ptr(), len(column.rows())) == (place, 10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
def test_a_batch_for_a_gpu_is_page_locked() -> None:
    assembly = BatchAssembly[PairBatch](1, pin=True)
    assembly.add(piece(0, [0, 1]))
    batch = assembly.batch()
    assert batch.picture is not None and batch.picture.is_pinned() and batch.text.is_pinned()
