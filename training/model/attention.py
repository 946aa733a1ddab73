"""Attention in packed rows: which kernel of transformers runs, and what keeps the samples of a row apart in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError

FLASH = ("flash_attention_3", "flash_attention_2")  # the newer one first
MIN_FLEX_HEAD = 16  # width of a head; flex attention has no CUDA kernel for a narrower one


@dataclass(frozen=True, slots=True)
class PackedAttention:
    """Runs a language model on rows that several samples share, so that no sample sees another.

    A sample begins where its position ids do, at 0.
    """

    setting: str  # `model.llm.attention`
    window: int | None  # attention reaches back at most so many tokens, the own one included; None: to the start

    def kernel(self, llm: Any, device: torch.device) -> str:
        """The attn_implementation of transformers that runs now.

        `auto` is flash attention on a GPU, where it is installed and no window is set, else flex attention, which
        torch has. On a CPU and in fp32 it is sdpa. sdpa also stands in for flash attention in fp32, which has no such
        kernel, and for flex attention on a CPU, where it has no backward pass.

        Raises UserError: flash attention is set and not installed.
        """
        is_half, on_gpu = torch.is_autocast_enabled(device.type), device.type == "cuda"
        if self.setting in FLASH:
            if is_half and not _is_installed(self.setting):
                raise UserError(
                    f"model.llm.attention {self.setting} needs a package that is not installed. "
                    "Remedy: pip install flash-attn, or --set model.llm.attention=auto."
                )
            return self.setting if is_half else "sdpa"
        if self.setting == "flex_attention":
            return self.setting if on_gpu else "sdpa"
        if self.setting != "auto":
            return self.setting
        if on_gpu and is_half:
            installed = next(filter(_is_installed, FLASH), None)
            if installed is not None and llm._supports_flash_attn and self.window is None:
                return installed
            if is_bf16(device) and llm._supports_flex_attn and _head_width(llm) >= MIN_FLEX_HEAD:
                return "flex_attention"
        return "sdpa" if llm._supports_sdpa else "eager"

    def hidden(self, llm: Any, embeds_RLD: Tensor, position_ids_RL: Tensor, documents: int) -> Tensor:
        """The last hidden states R,L,D of a language model.

        Under bf16 autocast they are bf16 from the first layer on, and so are queries and keys, as values are anyway.
        Under fp16 they stay fp32: the residual stream of a language model goes beyond the range of fp16.

        Args: documents: that begin in all rows together, or more.
        """
        device = embeds_RLD.device
        kernel = self.kernel(llm, device)
        llm.config._attn_implementation = kernel  # read anew by each layer
        if is_bf16(device):
            embeds_RLD = embeds_RLD.bfloat16()
        if kernel in FLASH:
            apart = _flash_arguments(position_ids_RL, documents)
        elif self.window is None and (kernel != "flex_attention" or has_own_windows(llm)):
            apart = {}  # transformers makes the masks of its layers from the position ids
        else:
            apart = {"attention_mask": _mask(position_ids_RL, kernel, self.window, embeds_RLD.dtype)}
        outputs = llm.base_model(inputs_embeds=embeds_RLD, position_ids=position_ids_RL, use_cache=False, **apart)
        return outputs.last_hidden_state

    def next_hidden(self, llm: Any, embeds_RLD: Tensor, position_ids_RL: Tensor, cache: Any) -> Tensor:
        """The last hidden states R,L,D of L further tokens of rows of one sample each, whose past is in a cache."""
        kernel = self.kernel(llm, embeds_RLD.device)
        if kernel == "flex_attention":  # it would be compiled again for each length of the cache
            kernel = "sdpa"
        llm.config._attn_implementation = kernel
        mask = None
        if self.window is not None:
            seen, length = cache.get_seq_length(), embeds_RLD.shape[1]
            column_K = torch.arange(seen + length, device=embeds_RLD.device)
            is_seen_LK = _is_near(column_K[seen:, None], column_K, self.window)
            mask = _as_mask(is_seen_LK[None, None].expand(len(embeds_RLD), -1, -1, -1), kernel, embeds_RLD.dtype)
        outputs = llm.base_model(
            inputs_embeds=embeds_RLD,
            position_ids=position_ids_RL,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        return outputs.last_hidden_state


def is_bf16(device: torch.device) -> bool:
    """Whether autocast to bf16 is on."""
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.bfloat16


def has_own_windows(llm: Any) -> bool:
    """Whether the model has layers that do not attend to all of a sample, as Mistral and Gemma have."""
    settings = llm.config.get_text_config()
    if layer_types := getattr(settings, "layer_types", None):
        return any(kind != "full_attention" for kind in layer_types)
    return getattr(settings, "sliding_window", None) is not None


def keep_dtype_in_norms(llm: nn.Module) -> None:
    """Make norms return the dtype that they are given.

    Their weights are fp32, and would promote bf16 hidden states, of which autocast then makes a copy for each linear
    layer that reads them.
    """
    for module in llm.modules():
        if type(module).__name__.endswith(("RMSNorm", "LayerNorm")):
            module.register_forward_hook(_as_given)


def _as_given(_norm: nn.Module, inputs: tuple[Tensor, ...], normed: Tensor) -> Tensor:
    return normed.to(inputs[0].dtype)


def _flash_arguments(position_ids_RL: Tensor, documents: int) -> dict[str, Any]:
    """What flash attention needs to take the rows as one, and to attend within each document of it.

    Its size is that of `documents`, so that nobody waits for the device to count them. Those over the true number have
    no tokens.
    """
    begins = (position_ids_RL == 0).flatten()
    lengths = torch.zeros(documents, dtype=torch.int32, device=begins.device)
    lengths = lengths.scatter_add(0, begins.cumsum(0) - 1, torch.ones_like(begins, dtype=torch.int32))
    ends = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    longest = position_ids_RL.shape[1]
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def _mask(position_ids_RL: Tensor, kernel: str, window: int | None, dtype: torch.dtype) -> Any:
    """The mask that keeps documents apart: of blocks for flex attention, so that it skips hidden ones; else R,1,L,L."""
    (rows, length), device = position_ids_RL.shape, position_ids_RL.device
    document_RL = (position_ids_RL == 0).cumsum(1)
    reach = length if window is None else window
    if kernel == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def is_seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return _is_near(query, key, reach) & (document_RL[row, query] == document_RL[row, key])

        # compiled, it does not write all of R,1,L,L to memory first
        return create_block_mask(is_seen, rows, None, length, length, str(device), _compile=device.type == "cuda")
    at_L = torch.arange(length, device=device)
    is_same_RLL = document_RL[:, :, None] == document_RL[:, None, :]
    return _as_mask((_is_near(at_L[:, None], at_L, reach) & is_same_RLL)[:, None], kernel, dtype)


def _is_near(query: Tensor, key: Tensor, reach: int) -> Tensor:
    return (query >= key) & (query - key < reach)


def _as_mask(is_seen: Tensor, kernel: str, dtype: torch.dtype) -> Tensor:
    """A bool mask as sdpa takes it, or as `eager` does, which adds it to the scores."""
    if kernel != "eager":
        return is_seen
    return torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device).masked_fill(~is_seen, torch.finfo(dtype).min)


def _is_installed(flash: str) -> bool:
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    return bool(is_flash_attn_3_available() if flash == "flash_attention_3" else is_flash_attn_2_available())


def _head_width(llm: Any) -> int:
    settings = llm.config.get_text_config()
    return int(getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads)
