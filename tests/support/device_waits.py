"""Finds, on the CPU, what would wait for a GPU: operations whose result the host must see before it goes on."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from training.data.batch_types import map_tensors

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default,  # item(), bool(), int(), float(), tolist()
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
}
TAKES_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class DeviceWaits(TorchDispatchMode):
    """Follows tensors that would be on a device, and records where they are waited for, as `operation: place`.

    Args: on_device: tensors that are there at first; what is computed from them is there too.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        super().__init__()
        self.found: list[str] = []
        self._on_device = WeakIdKeyDictionary()
        for tensor in on_device:
            self._on_device[tensor] = True

    def moved(self, value: Any, _device: Any = None) -> Any:
        """Stands for `to_device`: counts what it counts, and takes a batch's tensors as being on the device."""
        moved = map_tensors(value, lambda tensor: tensor.view_as(tensor))
        for tensor in _tensors(moved):
            self._on_device[tensor] = True
        return moved

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        result = func(*args, **(kwargs or {}))
        if any(tensor in self._on_device for tensor in inputs):
            by_mask = func in TAKES_INDICES and any(
                index is not None and index.dtype == torch.bool for index in args[1]
            )
            if func in WAITS or by_mask:
                stack = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
                ours = [place for place in stack if "/training/" in place and "/tests/" not in place]
                self.found.append(f"{func}: {ours[-1] if ours else 'not ours'}")
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._on_device[leaf] = True
        return result


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        return [tensor for field in fields(value) for tensor in _tensors(getattr(value, field.name))]
    return []
