"""The text tower on as many positions as the captions need.

Tokenizers pad every caption to the model's context (77 for CLIP), and captions of the web take about 15. Where
attention is causal and the text is read off at its end token, or where padding is masked out, what stands behind the
last token changes nothing: leaving it away gives the same embedding for a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Encode = Callable[["torch.Tensor"], "torch.Tensor"]
Width = Callable[["torch.Tensor"], "torch.Tensor"]

ROUND_TO = 8  # few distinct lengths: few compiled graphs, and what matrix units like


def trimmed(model: Any) -> tuple[Encode, Width]:
    """How to encode token ids N,L cut at any length, and the length that each row of full token ids needs.

    For towers where the cut would change the result the width is the whole context.

    Returns:
        encode: token ids N,L -> features N,D, before normalisation.
        width: token ids N,context -> int64 N, rows' own lengths.
    """
    from open_clip.hf_model import HFTextEncoder
    from open_clip.transformer import TextTransformer

    tower = getattr(model, "text", model)
    if isinstance(tower, HFTextEncoder):
        pad = tower.config.pad_token_id
        return model.encode_text, lambda tokens: _last(tokens, pad)
    is_clip = type(model).__name__ == "CLIP" and hasattr(model, "attn_mask")
    pool = getattr(tower, "text_pool_type" if is_clip else "pool_type", None)
    eos = getattr(tower, "text_eos_id" if is_clip else "eos_id", 0)
    plain = is_clip or (isinstance(tower, TextTransformer) and tower.cls_emb is None and not tower.use_pad_mask)
    if not plain or tower.attn_mask is None or pool not in ("argmax", "eos"):
        return model.encode_text, _whole
    return _causal(tower, pool, eos)


def _causal(tower: Any, pool: str, eos: int) -> tuple[Encode, Width]:
    """open_clip's own forward pass of a causal tower (transformer.py), on the first L positions."""
    import torch

    def end(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.argmax(-1) if pool == "argmax" else tokens.eq(eos).int().argmax(-1)

    def encode(tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        x = tower.ln_final(x[torch.arange(len(x), device=x.device), end(tokens)])
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if callable(projection) else x @ projection

    return encode, lambda tokens: end(tokens) + 1


def _last(tokens: torch.Tensor, pad: int) -> torch.Tensor:
    """One past the last token of each row that is no padding; at least 1."""
    held = tokens.ne(pad).int()
    length = tokens.shape[1] - held.flip(1).argmax(1)
    return length.where(held.any(1), length.new_ones(()))


def _whole(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.new_full((len(tokens),), tokens.shape[1])
