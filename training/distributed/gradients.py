"""Gradients of a model that is spread over processes: when they are summed, and how they are clipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from training.distributed.process_mesh import Mesh

Autocast = Callable[[], AbstractContextManager[Any]]  # makes the context of a forward pass
ScaleLoss = Callable[[Tensor], Tensor]  # scales a loss before its backward pass
BUCKET_BYTES = 64 << 20  # of gradients that are summed over ranks at once
CLIP_EPSILON = 1e-6  # as torch's clip_grad_norm_ adds to the norm


def sync_gradients(model: Any, now: bool) -> AbstractContextManager[Any]:
    """A context for a backward pass: gradients are summed over ranks in it, or stay local until a later one."""
    if hasattr(model, "set_requires_gradient_sync"):  # FSDP2
        model.set_requires_gradient_sync(now)
    elif hasattr(model, "no_sync") and not now:  # DDP
        return model.no_sync()
    return nullcontext()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], mesh: Mesh) -> None:
    """Average gradients over the data-parallel ranks, in a few large sums instead of one for each parameter."""
    if mesh.size("dp") == 1:
        return
    buckets: list[list[Tensor]] = []
    free_bytes: dict[torch.dtype, tuple[int, list[Tensor]]] = {}
    for grad in (parameter.grad for parameter in parameters if parameter.grad is not None):
        left, bucket = free_bytes.get(grad.dtype, (0, []))
        if left <= 0:
            left, bucket = BUCKET_BYTES, []
            buckets.append(bucket)
        bucket.append(grad)
        free_bytes[grad.dtype] = (left - grad.nbytes, bucket)
    for bucket in buckets:
        joined = torch.cat([grad.flatten() for grad in bucket])
        dist.all_reduce(joined, group=mesh.dp_group)
        joined /= mesh.size("dp")
        parts = joined.split([grad.numel() for grad in bucket])
        torch._foreach_copy_(bucket, [part.view_as(grad) for part, grad in zip(parts, bucket, strict=True)])


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float | None, mesh: Mesh, loss_scale: Tensor | None = None
) -> Tensor:
    """Scale all gradients down together, so that their 2-norm is at most `max_norm`, and return the norm before.

    Args:
        parameters: may be sharded over different meshes, or not at all.
        max_norm: None: nothing is clipped.
        loss_scale: a scalar that the loss was multiplied by; the gradients and the norm are divided by it.
    """
    by_mesh: defaultdict[Any, list[nn.Parameter]] = defaultdict(list)  # torch's functions take one mesh at a time
    for parameter in parameters:
        if parameter.grad is not None:
            by_mesh[parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None].append(parameter)
    squared = torch.zeros((), device=mesh.device)
    for group in by_mesh.values():
        counted = [p.grad for p in group if p.grad is not None and not getattr(p, "counted_elsewhere", False)]
        norm = get_total_norm(counted, foreach=True)  # torch would choose a loop for sharded gradients
        squared += (norm.full_tensor() if isinstance(norm, DTensor) else norm).square()
    if mesh.size("pp") > 1:
        dist.all_reduce(squared, group=mesh.groups["pp"])
    total = squared.sqrt() if loss_scale is None else squared.sqrt() / loss_scale
    factor = None if max_norm is None else (max_norm / (total + CLIP_EPSILON)).clamp_max(1.0)
    if loss_scale is not None:
        factor = (1 if factor is None else factor) / loss_scale
    if factor is not None:
        for group in by_mesh.values():
            torch._foreach_mul_([p.grad for p in group if p.grad is not None], factor)
    return total
