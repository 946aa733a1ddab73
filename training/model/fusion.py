"""Fusion of media and text: projectors, a resampler, and the layers of a language model at which media enter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError

CROSS_ATTENTION_EVERY = 4  # layers, for fusion `attention` with cross-attention (Flamingo, Alayrac et al. 2022)


@dataclass(frozen=True, slots=True)
class Entry:
    """Features of one depth of the encoder enter at one layer of the LLM."""

    layer: int  # index of the layer of the LLM
    depth: float  # as a share of the encoder's depth; 1 is its last feature map


def fusion_plan(architecture: str, fusion: str, layers: int) -> list[Entry]:
    """At which layers of the LLM features enter, and from which depth of the encoder.

    Args:
        fusion: early: the last features at the first layer. late: the last features at three quarters of the layers.
            hierarchical: the last features at the first layer, and features of one and two thirds of the encoder's
            depth at a quarter and half of the layers (DeepStack, Meng et al. 2024). attention: the last features at
            the first layer, or, for architecture `cross_attention`, at every fourth layer.
        layers: number of layers of the LLM.
    """
    if fusion == "late":
        return [Entry(min(layers - 1, 3 * layers // 4), 1.0)]
    if fusion == "hierarchical":
        depths = {0: 1.0, max(1, layers // 4): 1 / 3, max(2, layers // 2): 2 / 3}
        return [Entry(layer, depth) for layer, depth in depths.items() if layer < layers]
    if fusion == "attention" and architecture == "cross_attention":
        return [Entry(layer, 1.0) for layer in range(0, layers, CROSS_ATTENTION_EVERY)]
    return [Entry(0, 1.0)]


class Projector(nn.Module):
    """Maps feature tokens B,N,width to B,N,dim.

    Args:
        hidden: width between the two layers.
        kind: norm_mlp: layer norm, linear, GELU, linear. mlp: the same without the norm (LLaVA 1.5, Liu et al. 2023).
            linear: one layer.
    """

    def __init__(self, width: int, hidden: int, dim: int, kind: str = "norm_mlp") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if kind == "norm_mlp" else None
        self.up = None if kind == "linear" else nn.Linear(width, hidden)
        self.down = nn.Linear(width if kind == "linear" else hidden, dim)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        hidden = tokens_BNC if self.norm is None else self.norm(tokens_BNC)
        return self.down(hidden if self.up is None else F.gelu(self.up(hidden)))


class Resampler(nn.Module):
    """Condenses any number of tokens with learned queries: B,N,dim -> B,queries,dim (Perceiver, Q-Former)."""

    def __init__(self, dim: int, queries: int, heads: int, depth: int = 2) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, dim) * dim**-0.5)
        self.blocks = nn.ModuleList(_ResamplerBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        queries_BQD = self.queries.expand(len(tokens_BND), -1, -1)
        for block in self.blocks:
            queries_BQD = block(queries_BQD, tokens_BND)
        return self.norm(queries_BQD)


class _ResamplerBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_q, self.norm_kv, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, queries_BQD: Tensor, tokens_BND: Tensor) -> Tensor:
        keys = torch.cat([self.norm_kv(tokens_BND), self.norm_q(queries_BQD)], 1)
        queries_BQD = queries_BQD + self.attention(self.norm_q(queries_BQD), keys)
        return queries_BQD + self.mlp(self.norm(queries_BQD))


class Attention(nn.Module):
    """Multi-head attention of one sequence to another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, queries_BLD: Tensor, keys_BTD: Tensor, mask_BLT: Tensor | None = None) -> Tensor:
        """Args: mask_BLT: bool, True for a key that the query sees. A query that sees no key gets zero."""
        q, k, v = (self._split(x) for x in (self.q(queries_BLD), *self.kv(keys_BTD).chunk(2, -1)))
        if mask_BLT is None:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:  # add a key and value of zeros that every query sees, because softmax over no key is not a number
            mask = F.pad(mask_BLT, (1, 0), value=True)[:, None]
            k, v = (F.pad(x, (0, 0, 1, 0)) for x in (k, v))
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens_BND: Tensor) -> Tensor:
        return tokens_BND.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GatedCrossAttention(nn.Module):
    """Attention of text to the media of its own sample. The gates begin closed, so the LLM is unchanged at first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.gate, self.gate_mlp = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, hidden_RLD: Tensor, media_RTD: Tensor, mask_RLT: Tensor) -> Tensor:
        sees = mask_RLT.any(-1, keepdim=True).to(hidden_RLD.dtype)
        attended = self.attention(self.norm(hidden_RLD), media_RTD, mask_RLT)
        hidden_RLD = hidden_RLD + (self.gate.tanh() * attended * sees).to(hidden_RLD.dtype)
        changed_RLD = self.gate_mlp.tanh() * self.mlp(self.norm_mlp(hidden_RLD)) * sees
        return hidden_RLD + changed_RLD.to(hidden_RLD.dtype)


class MediaContext:
    """The media of the current forward pass, for the fused layers.

    Args:
        added: layer -> R,L,D to add to its input (architecture `single_tower`).
        seen: layer -> media tokens R,T,D to attend to (architecture `cross_attention`).
        mask: bool R,L,T; which position sees which of these tokens.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.added: dict[int, Tensor] = {}
        self.seen: dict[int, Tensor] = {}
        self.mask: Tensor | None = None


class FusedLayer(nn.Module):
    """Wraps a decoder layer: adds media features to its input, or runs gated cross-attention first."""

    def __init__(self, layer: nn.Module, index: int, context: MediaContext, cross: GatedCrossAttention | None) -> None:
        super().__init__()
        self.layer, self.cross = layer, cross
        self.index, self._context = index, context

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Pass the context's tensors to `forward`, because the context is empty when a backward pass recomputes it."""
        added, seen = self._context.added.get(self.index), self._context.seen.get(self.index)
        return super().__call__(*args, media=(added, seen, self._context.mask), **kwargs)

    def forward(self, hidden_RLD: Tensor, *args: Any, media: tuple[Tensor | None, ...], **kwargs: Any) -> Any:
        added, seen, mask = media
        if added is not None:
            hidden_RLD = hidden_RLD + added.to(hidden_RLD.dtype)
        if self.cross is not None and seen is not None:
            assert mask is not None
            hidden_RLD = self.cross(hidden_RLD, seen, mask)
        return self.layer(hidden_RLD, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:  # transformers reads attributes of its layers, such as attention_type
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def decoder_list(llm: nn.Module) -> nn.ModuleList:
    """The list of a language model's blocks, which is the longest of its module lists.

    Raises UserError: it has none.
    """
    lists = [module for module in llm.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UserError(
            f"{type(llm).__name__} keeps its layers in no list, so media cannot enter it. Remedy: another model.llm."
        )
    return max(lists, key=len)
