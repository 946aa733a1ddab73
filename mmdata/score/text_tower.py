"""Compute the text tower on only as many token positions as the captions need.

Tokenizers pad every caption to the model's context (77 tokens for CLIP), but captions of the web have about 15. Where
attention is causal and the embedding is read at the end token, or where padding is masked, the positions after the
last token change nothing: leaving them out gives the same embedding for a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Encode = Callable[["torch.Tensor"], "torch.Tensor"]
"""Token ids N,L -> features N,D, before normalisation."""

NeededLengths = Callable[["torch.Tensor"], "torch.Tensor"]
"""Token ids N,context -> int64 N: how many positions of each row are needed."""

LENGTH_MULTIPLE = 8  # lengths are rounded up to it: few compiled graphs, and sizes that matrix units compute fast


def trim_text_tower(model: Any) -> tuple[Encode, NeededLengths]:
    """A function that encodes token ids cut to any length, and one that says which length each row needs.

    Towers whose result would change by the cut need the whole context.
    """
    from open_clip.hf_model import HFTextEncoder
    from open_clip.transformer import TextTransformer

    tower = getattr(model, "text", model)
    if isinstance(tower, HFTextEncoder):  # these mask the padding
        pad_id = tower.config.pad_token_id
        return model.encode_text, lambda tokens: _lengths_without_padding(tokens, pad_id)
    is_clip = type(model).__name__ == "CLIP" and hasattr(model, "attn_mask")
    pool = getattr(tower, "text_pool_type" if is_clip else "pool_type", None)
    end_id = getattr(tower, "text_eos_id" if is_clip else "eos_id", 0)
    is_plain = is_clip or (isinstance(tower, TextTransformer) and tower.cls_emb is None and not tower.use_pad_mask)
    if not is_plain or tower.attn_mask is None or pool not in ("argmax", "eos"):
        return model.encode_text, whole_context
    return _trim_causal_tower(tower, pool, end_id)


def _trim_causal_tower(tower: Any, pool: str, end_id: int) -> tuple[Encode, NeededLengths]:
    """The forward pass of open_clip's causal towers (open_clip/transformer.py), on the first L positions."""
    import torch

    def end_position(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.argmax(-1) if pool == "argmax" else tokens.eq(end_id).int().argmax(-1)

    def encode(tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        x = tower.ln_final(x[torch.arange(len(x), device=x.device), end_position(tokens)])
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if callable(projection) else x @ projection

    return encode, lambda tokens: end_position(tokens) + 1


def _lengths_without_padding(tokens: torch.Tensor, pad_id: int) -> torch.Tensor:
    """The length of each row up to its last token that is not padding; at least 1."""
    is_token = tokens.ne(pad_id).int()
    length = tokens.shape[1] - is_token.flip(1).argmax(1)
    return length.where(is_token.any(1), length.new_ones(()))


def whole_context(tokens: torch.Tensor) -> torch.Tensor:
    """The context length for every row, int64 N."""
    return tokens.new_full((len(tokens),), tokens.shape[1])
