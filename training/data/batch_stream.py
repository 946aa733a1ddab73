"""A reader's batches one after the other, read in pieces by worker processes and joined ahead of their use."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from itertools import chain, islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from training.data.batch_readers import Plan, Reader
from training.data.batch_types import BatchType, to_device
from training.data.order import next_draw
from training.data.read_ahead import read_ahead


def _consumed_counts(consumed: int, batch_size: int, n: int) -> Iterator[int]:
    """The samples consumed before each step, without an end."""
    while True:
        yield consumed
        consumed = next_draw(consumed, batch_size, n).consumed


class _Pieces(Dataset[BatchType]):
    """A reader as torch's workers take it: indexed by pieces."""

    def __init__(self, reader: Reader[BatchType, Any], busy: Tensor | None) -> None:
        self._reader, self._busy = reader, busy

    def __getitem__(self, piece: Any) -> BatchType:
        worker = get_worker_info()
        if worker is None or self._busy is None:
            return self._reader.read(piece)
        self._busy[worker.id] = torch.tensor([time.monotonic(), os.getpid()], dtype=torch.float64)
        read = self._reader.read(piece)
        self._busy[worker.id, 0] = 0.0
        return read


def batches(
    reader: Reader[BatchType, Any],
    consumed: int,
    workers: int = 0,
    prefetch: int = 4,
    pin: bool = False,
    count: int | None = None,
    busy: Tensor | None = None,
) -> Generator[BatchType, None, None]:
    """A reader's batches after `consumed` samples.

    Workers read pieces; a thread joins them, one batch ahead. Beside the batch that is worked on, two whole ones are in
    memory at most, and `workers * prefetch` pieces. Close the result to end both.

    Args:
        consumed: samples consumed before; this is the loader's whole state.
        workers: processes; 0: each batch is read when it is asked for.
        prefetch: pieces that each worker reads ahead.
        pin: join them in page-locked memory, for a copy to a GPU.
        count: of the batches; None: without an end.
        busy: float64 workers,2 in shared memory, where each worker writes since when it reads, and its process id.
    """
    plans: deque[Plan[Any]] = deque()

    def pieces() -> Iterator[Any]:
        for before in islice(_consumed_counts(consumed, reader.batch_size, reader.order.n), count):
            plans.append(reader.plan(before))
            yield from plans[-1].pieces

    options: dict[str, Any] = {"prefetch_factor": prefetch} if workers else {}
    loader: DataLoader[BatchType] = DataLoader(
        _Pieces(reader, busy), None, sampler=cast(Any, pieces()), num_workers=workers, collate_fn=_unchanged, **options
    )
    read = iter(loader)  # starts the workers, here in the main thread

    def joined() -> Iterator[BatchType]:
        for first in read:  # whose plan is made
            plan = plans.popleft()
            yield reader.joined(chain([first], islice(read, len(plan.pieces) - 1)), plan, pin)

    yield from read_ahead(joined()) if workers else joined()


def _unchanged(piece: Any) -> Any:
    return piece


def first_batches(
    reader: Reader[BatchType, Any], samples: int, device: torch.device, workers: int = 0, prefetch: int = 4
) -> Generator[BatchType, None, None]:
    """The batches, on a device, that hold the first `samples` samples of a reader's order.

    Args: workers, prefetch: as of `batches`.
    """
    count = -(-samples // reader.batch_size)
    for batch in batches(reader, 0, workers, prefetch, device.type == "cuda", count):
        yield to_device(batch, device)
