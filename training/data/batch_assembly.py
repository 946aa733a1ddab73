"""Joins the pieces of a batch that worker processes read, in pinned memory where a GPU is to copy them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor

from training.data.batch_types import BatchType


class GrowingTensor:
    """Rows of one shape and dtype that are appended.

    Args:
        pieces: how many are expected; all as long as the first, they need no second allocation.
        pin: whether in page-locked memory, from which a GPU copies without waiting.
    """

    def __init__(self, pieces: int, pin: bool) -> None:
        self._pieces, self._pin = pieces, pin
        self._buffer: Tensor | None = None
        self._count = 0

    def append(self, rows: Tensor) -> None:
        """Copy rows to the end."""
        stop = self._count + len(rows)
        if self._buffer is None:
            self._buffer = self._allocated(len(rows) * self._pieces, rows)
        elif stop > len(self._buffer):
            grown = self._allocated(max(stop, len(self._buffer) * 3 // 2), rows)
            grown[: self._count] = self.rows()
            self._buffer = grown
        self._buffer[self._count : stop] = rows
        self._count = stop

    def rows(self) -> Tensor:
        """All rows; without a copy."""
        assert self._buffer is not None, "something was appended"
        return self._buffer[: self._count]

    def _allocated(self, count: int, like: Tensor) -> Tensor:
        return torch.empty((count, *like.shape[1:]), dtype=like.dtype, pin_memory=self._pin)


class BatchAssembly(Generic[BatchType]):
    """A batch that grows piece by piece. Each piece is copied as it comes, so that its shared memory is free again.

    Args: pieces: of the batch.
    """

    def __init__(self, pieces: int, pin: bool = False) -> None:
        self._tensors: defaultdict[str, GrowingTensor] = defaultdict(lambda: GrowingTensor(pieces, pin))
        self._others: dict[str, Any] = {}
        self._rows = 0
        self._last: BatchType | None = None

    def add(self, piece: BatchType) -> None:
        """Append a piece: its tensors, its lists; its numbers are summed."""
        self._append("", piece.moved_by(self._rows))
        self._rows += piece.rows
        self._last = piece

    def batch(self) -> BatchType:
        """All pieces as one."""
        assert self._last is not None, "a batch has a piece, which may be empty"
        return self._joined("", self._last)

    def _append(self, path: str, value: Any) -> None:
        for field in fields(value):
            name, item = f"{path}.{field.name}", getattr(value, field.name)
            if isinstance(item, Tensor):
                self._tensors[name].append(item)
            elif is_dataclass(item):
                self._append(name, item)
            elif item is not None:
                self._others[name] = self._others[name] + item if name in self._others else item

    def _joined(self, path: str, like: Any) -> Any:
        values: dict[str, Any] = {}
        for field in fields(like):
            name, item = f"{path}.{field.name}", getattr(like, field.name)
            if name in self._tensors:
                values[field.name] = self._tensors[name].rows()
            else:
                values[field.name] = self._joined(name, item) if is_dataclass(item) else self._others.get(name)
        return replace(like, **values)
