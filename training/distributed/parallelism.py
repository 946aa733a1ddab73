"""How a model is spread over processes, applied from outside the model in one fixed order."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mmdata.errors import UserError
from training.config import Parallel
from training.distributed.process_mesh import Mesh
from training.model.fusion import FusedLayer, decoder_list
from training.model.llm import is_tied


def parallelise(model: nn.Module, llm: Any, blocks: Iterable[nn.Module], parallel: Parallel, mesh: Mesh) -> nn.Module:
    """Tensor parallel, activation checkpointing, compile, then FSDP2 or DDP: always in this order.

    Args:
        model: on `mesh.device`; its forward is the only thing called on it in training.
        llm: the language model in it, or None.
        blocks: its repeated layers, which are sharded, recomputed and compiled one by one.

    Returns: The model, or DDP around it.
    """
    blocks = list(blocks)
    if mesh.size("tp") > 1:
        tensor_parallel(llm, mesh.mesh["tp"])
    if parallel.activation_checkpointing:
        _recompute(blocks)
    if parallel.compile:
        for block in blocks:
            block.compile()
    if mesh.size("pp") > 1:  # PipelineStep averages the gradients itself
        return model
    if mesh.size("dp") == 1 and not (mesh.groups and parallel.strategy == "fsdp2"):
        return model
    if parallel.strategy == "fsdp2":
        return _fully_sharded(model, llm, blocks, parallel, mesh)
    from torch.nn.parallel import DistributedDataParallel

    if not any(p.requires_grad for p in model.parameters()):
        return model
    ids = [mesh.device.index] if mesh.device.type == "cuda" else None
    # torch 2.15 renames an argument, whose new name torch 2.11 does not have
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return DistributedDataParallel(model, device_ids=ids, process_group=mesh.dp_group, broadcast_buffers=False)


def tensor_parallel(llm: Any, mesh: Any) -> None:
    """Split the decoder's linear layers by the plan that transformers keeps for the model.

    Raises UserError: the model has no plan, or heads that do not divide.
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
    layer_plan = {
        name.removeprefix("layers.*."): style
        for name, style in plan.items()
        if name.startswith("layers.*.") and style in styles
    }
    for block in decoder_list(llm):
        layer = block.layer if isinstance(block, FusedLayer) else block
        names = {name for name, _ in layer.named_modules()}
        modules: dict[str, Any] = {}
        for name, style in layer_plan.items():
            if f"{name}.base_layer" in names:  # with a LoRA adapter: B is split like the columns, A like the rows
                adapter = "lora_B" if style == "colwise" else "lora_A"
                modules |= {f"{name}.base_layer": styles[style](), f"{name}.{adapter}.default": styles[style]()}
            elif name in names:
                modules[name] = styles[style]()
        parallelize_module(layer, mesh, modules)


def _recompute(blocks: list[nn.Module]) -> None:
    """Make each block compute its activations again in the backward pass, without renaming its parameters."""
    from torch.utils.checkpoint import checkpoint

    for block in blocks:
        forward = block.forward

        def recomputed(*args: Any, _forward: Any = forward, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return _forward(*args, **kwargs)
            return checkpoint(_forward, *args, use_reentrant=False, **kwargs)

        block.forward = recomputed


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that training computes in. Args: precision: `parallel.precision`."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _fully_sharded(model: nn.Module, llm: Any, blocks: list[nn.Module], parallel: Parallel, mesh: Mesh) -> nn.Module:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = whole = MixedPrecisionPolicy()
    if compute_dtype(parallel.precision, mesh.device) == torch.bfloat16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if llm is not None:  # else the temperature is among the other parameters, and stays fp32
            whole = replace(policy, cast_forward_inputs=False)  # sound is an input, and stays fp32
    options: dict[str, Any] = {"mesh": mesh.mesh["dp"], "mp_policy": policy}
    for block in blocks:
        fully_shard(block, **options)
    if llm is not None and not is_tied(llm):  # tied embeddings stay with the whole, since the head needs them too
        fully_shard(llm.get_input_embeddings(), **options)
    fully_shard(model, **{**options, "mp_policy": whole})
    if (reference := getattr(model, "reference", None)) is not None:
        for block in decoder_list(reference):
            fully_shard(block, **options)
        # its embeddings and head are called without the rest, so each rank keeps them
        words = set(reference.get_input_embeddings().parameters())
        fully_shard(reference.base_model, **options, ignored_params=words)
    return model
