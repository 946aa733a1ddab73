"""Flash attention's functions on a CPU: they take what the CUDA kernels take, and compute document by document."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES: list[torch.dtype] = []  # of the queries, keys and values of each call


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """Tokens N,H,D of all documents -> N,H,D."""
    assert causal and dropout_p == 0 and window_size == (-1, -1)
    assert cu_seqlens_q.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k)
    bounds = cu_seqlens_q.tolist()
    assert bounds[0] == 0 and bounds[-1] == len(q)
    assert max(end - begin for begin, end in pairwise(bounds)) <= max_seqlen_q == max_seqlen_k
    parts = [_attended(q[begin:end], k[begin:end], v[begin:end], softmax_scale) for begin, end in pairwise(bounds)]
    return torch.cat([part for part in parts if len(part)])


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None = None, **_options: Any) -> Tensor:
    """Rows R,L,H,D of one document each -> R,L,H,D."""
    return torch.stack([_attended(*row, softmax_scale) for row in zip(q, k, v, strict=True)])


def _attended(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    DTYPES.extend((q.dtype, k.dtype, v.dtype))
    assert q.dtype == k.dtype == v.dtype and q.dtype in (torch.bfloat16, torch.float16), "there is no other kernel"
    with torch.autocast("cpu", enabled=False):
        q, k, v = (heads.transpose(0, 1) for heads in (q, k, v))
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        return F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True).transpose(0, 1)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers and our choice of a kernel find these functions."""
    import transformers.modeling_flash_attention_utils as flash

    functions = (flash_attn_func, flash_attn_varlen_func, None, None, None)
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_args, **_options: functions)
    monkeypatch.setattr("training.model.attention._is_installed", lambda _flash: True)
    DTYPES.clear()
