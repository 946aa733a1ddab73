"""Several processes: the mesh, and what is done to a model from outside, in one fixed order."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmdata.errors import UserError
from training.config import Parallel
from training.model.fusion import FusedLayer, decoder_list


@dataclass(frozen=True)
class Mesh:
    """Where this process stands.

    Args:
        device: of this process.
        groups: process groups by dimension (pp, dp, tp); empty on one process.
        mesh: torch's device mesh; None on one process.
    """

    device: torch.device
    groups: dict[str, Any]
    mesh: Any = None

    def size(self, name: str) -> int:
        return dist.get_world_size(self.groups[name]) if self.groups else 1

    def rank(self, name: str) -> int:
        return dist.get_rank(self.groups[name]) if self.groups else 0

    @property
    def dp_group(self) -> Any:
        return self.groups.get("dp")

    @property
    def is_main(self) -> bool:
        return not dist.is_initialized() or dist.get_rank() == 0

    def sum(self, values: Tensor) -> Tensor:
        """Summed over the data-parallel ranks, in place."""
        if self.size("dp") > 1:
            dist.all_reduce(values, group=self.dp_group)
        return values

    def barrier(self) -> None:
        if self.groups:
            dist.barrier()


def start(parallel: Parallel, device: str) -> Mesh:
    """Join the processes that torchrun launched, or stay alone.

    Raises:
        UserError: tp and pp do not divide the number of processes, or more than one is needed.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if world % (parallel.tp * parallel.pp):
        raise UserError(
            f"parallel: tp {parallel.tp} x pp {parallel.pp} does not divide {world} process(es). "
            "Remedy: `torchrun --nproc-per-node N -m training …` with a multiple of it."
        )
    if world == 1:
        return Mesh(torch.device(kind), {})
    if kind.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        kind = "cuda"
    if not dist.is_initialized():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    shape = (parallel.pp, world // (parallel.tp * parallel.pp), parallel.tp)
    mesh = dist.init_device_mesh(kind, shape, mesh_dim_names=("pp", "dp", "tp"))
    where = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    return Mesh(where, {name: mesh.get_group(name) for name in ("pp", "dp", "tp")}, mesh)


def parallelise(model: nn.Module, llm: Any, blocks: Iterable[nn.Module], parallel: Parallel, mesh: Mesh) -> nn.Module:
    """Tensor parallel, activation checkpointing, compile, then FSDP2 or DDP: always in this order.

    Args:
        model: on `mesh.device`; its forward is the only thing called on it in training.
        llm: the language model in it, or None.
        blocks: its repeated layers: what is sharded, recomputed and compiled one by one.

    Returns:
        The model, or DDP around it.
    """
    blocks = list(blocks)
    if mesh.size("tp") > 1:
        tensor_parallel(llm, mesh.mesh["tp"])
    if parallel.activation_checkpointing:
        _recompute(blocks)
    if parallel.compile:
        for block in blocks:
            block.compile()
    if mesh.size("pp") > 1:  # its step joins gradients itself
        return model
    if mesh.size("dp") == 1 and not (mesh.groups and parallel.strategy == "fsdp2"):
        return model
    if parallel.strategy == "fsdp2":
        return _fully_sharded(model, blocks, parallel, mesh)
    from torch.nn.parallel import DistributedDataParallel

    if not any(p.requires_grad for p in model.parameters()):
        return model
    ids = [mesh.device.index] if mesh.device.type == "cuda" else None
    with warnings.catch_warnings():  # the argument's newer name is not known to torch 2.11
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, device_ids=ids, process_group=mesh.dp_group, broadcast_buffers=False)


def tensor_parallel(llm: Any, mesh: Any) -> None:
    """Split the decoder's linear layers by the plan that transformers keeps for the model.

    Raises:
        UserError: the model has no plan, or heads that do not divide.
    """
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    settings = llm.config.get_text_config()
    heads = [settings.num_attention_heads, getattr(settings, "num_key_value_heads", settings.num_attention_heads)]
    if any(count % mesh.size() for count in heads):
        raise UserError(f"parallel.tp {mesh.size()} does not divide the attention's heads {heads}")
    plan = getattr(llm.base_model.config, "base_model_tp_plan", None)
    if not plan:
        raise UserError(f"{type(llm).__name__} has no tensor-parallel plan. Remedy: parallel.tp = 1, or fsdp2.")
    styles = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
    within = {name.removeprefix("layers.*."): style for name, style in plan.items() if name.startswith("layers.*.")}
    known = {name: style for name, style in within.items() if style in styles}
    for layer in decoder_list(llm):
        inner = layer.layer if isinstance(layer, FusedLayer) else layer
        plan_here: dict[str, Any] = {}
        for name, style in known.items():
            if _has(inner, name):
                plan_here |= _with_adapters(inner, name, style, styles)
        parallelize_module(inner, mesh, plan_here)


def _with_adapters(layer: nn.Module, name: str, style: str, styles: dict[str, Any]) -> dict[str, Any]:
    """The plan of one linear layer, of its low-rank adapter too: B is split as the columns are, A as the rows are."""
    if not _has(layer, f"{name}.base_layer"):
        return {name: styles[style]()}
    split = "lora_B" if style == "colwise" else "lora_A"
    return {f"{name}.base_layer": styles[style](), f"{name}.{split}.default": styles[style]()}


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True


def _recompute(blocks: list[nn.Module]) -> None:
    """Make each block forget its activations, without renaming its parameters."""
    from torch.utils.checkpoint import checkpoint

    for block in blocks:
        forward = block.forward

        def recomputed(*args: Any, _forward: Any = forward, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return _forward(*args, **kwargs)
            return checkpoint(_forward, *args, use_reentrant=False, **kwargs)

        block.forward = recomputed


def _fully_sharded(model: nn.Module, blocks: list[nn.Module], parallel: Parallel, mesh: Mesh) -> nn.Module:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy()
    if mesh.device.type == "cuda" and parallel.precision in ("auto", "bf16"):
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=mesh.mesh["dp"], mp_policy=policy)
    fully_shard(model, mesh=mesh.mesh["dp"], mp_policy=policy)
    return model


def sync_gradients(model: Any, now: bool) -> Any:
    """A context in which the backward pass sums gradients over ranks, or keeps them local until a later one does."""
    from contextlib import nullcontext

    if hasattr(model, "set_requires_gradient_sync"):  # FSDP2
        model.set_requires_gradient_sync(now)
        return nullcontext()
    if hasattr(model, "no_sync") and not now:
        return model.no_sync()
    return nullcontext()


@torch.no_grad()
def gradient_norm(parameters: list[nn.Parameter], mesh: Mesh) -> Tensor:
    """The 2-norm of all gradients, whatever they are sharded over, as a scalar on the device."""
    from torch.distributed.tensor import DTensor, Shard

    sums: dict[tuple[Any, ...], Tensor] = {}
    for parameter in parameters:
        if (grad := parameter.grad) is None or getattr(parameter, "counted_elsewhere", False):
            continue
        groups: tuple[Any, ...] = ()
        if isinstance(grad, DTensor):
            sharded = [at for at, placement in enumerate(grad.placements) if isinstance(placement, Shard)]
            groups = tuple(grad.device_mesh.get_group(at) for at in sharded)
            grad = grad.to_local()
        square = grad.float().square().sum()
        sums[groups] = sums[groups] + square if groups in sums else square
    total = torch.zeros((), device=mesh.device)
    for groups, square in sums.items():
        for group in groups:
            dist.all_reduce(square, group=group)
        total = total + square
    if mesh.size("pp") > 1:
        dist.all_reduce(total, group=mesh.groups["pp"])
    return total.sqrt()


@torch.no_grad()
def scale_gradients(parameters: list[nn.Parameter], factor: Tensor) -> None:
    """Multiply every gradient by a scalar on the device."""
    for parameter in parameters:
        if parameter.grad is not None:
            local = parameter.grad.to_local() if hasattr(parameter.grad, "to_local") else parameter.grad
            local.mul_(factor)
