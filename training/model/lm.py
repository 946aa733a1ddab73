"""A causal language model that sees and hears: encoders, connector, LLM."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Model
from training.data.tokens import IGNORED
from training.model.encoders import DualEncoder
from training.model.fusion import (
    Context,
    FusedLayer,
    GatedCrossAttention,
    Projector,
    Resampler,
    decoder_list,
    fusion_plan,
)
from training.model.losses import chunked_cross_entropy, chunked_kl

Batch = Mapping[str, Any]


class Connector(nn.Module):
    """An encoder's features to the LLM's width, for each entry of the fusion plan."""

    def __init__(self, widths: Sequence[int], hidden: int, dim: int, heads: int, queries: int | None) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(Projector(width, hidden, dim) for width in widths)
        self.resampler = Resampler(dim, queries, heads) if queries is not None else None

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features M,N,C of each entry -> tokens M,K,D of each."""
        found = [projector(one) for projector, one in zip(self.projectors, features, strict=True)]
        return [self.resampler(one) for one in found] if self.resampler is not None else found


class MultimodalLm(nn.Module):
    """Frozen encoders, a connector, and a causal LLM.

    In `single_tower` media tokens stand in the row, at columns that the batch leaves free; in `cross_attention` they
    stand beside it. `forward` gives sums, not means: the trainer divides by one count over all ranks.

    Args:
        encoder: its text tower is dropped.
        llm: any Hugging Face causal language model.
    """

    llm: Any
    reference: Any

    def __init__(self, encoder: DualEncoder, llm: Any, config: Model) -> None:
        super().__init__()
        self.vision, self.audio = encoder.vision, encoder.audio
        self.register_buffer("pixel_mean", encoder.pixel_mean, persistent=False)
        self.register_buffer("pixel_std", encoder.pixel_std, persistent=False)
        self.llm = llm
        self.in_sequence = config.architecture == "single_tower"
        settings = llm.config.get_text_config()
        self.dim, heads = int(settings.hidden_size), int(settings.num_attention_heads)
        self.window = config.llm.sliding_window
        self.attention = config.llm.attention
        layers = decoder_list(llm)
        self.plan = fusion_plan(config.architecture, config.fusion, len(layers))
        self._context = Context()
        self._wrap(layers, heads)
        queries = config.queries if config.fusion == "attention" else None
        hidden = config.connector_width or self.dim
        shapes = self._shapes()
        self.connector = Connector([shape[-1] for shape in shapes], hidden, self.dim, heads, queries)
        self.picture_tokens = (queries or shapes[0][0]) if self.in_sequence else 0
        self.hearing: Connector | None = None
        self.sound_tokens = 0
        if self.audio is not None:
            with torch.no_grad():
                tokens = self.audio.tokens(torch.zeros(1, self.audio.samples)).shape[1]
            self.hearing = Connector([self.audio.width] * len(self.plan), hidden, self.dim, heads, queries)
            self.sound_tokens = (queries or tokens) if self.in_sequence else 0
        deep = self.in_sequence and self.plan[0].layer > 0
        self.placeholder = nn.Parameter(torch.randn(self.dim) * 0.02) if deep else None
        object.__setattr__(self, "reference", None)  # no submodule: it is neither saved nor sharded

    def _wrap(self, layers: nn.ModuleList, heads: int) -> None:
        for entry in self.plan:
            if not (self.in_sequence and entry.layer == 0):
                cross = None if self.in_sequence else GatedCrossAttention(self.dim, heads)
                layers[entry.layer] = FusedLayer(layers[entry.layer], entry.layer, self._context, cross)

    def _shapes(self) -> list[tuple[int, int]]:
        """(tokens, width) of the features that each entry of the plan takes."""
        with torch.no_grad():
            size = self.vision.preprocess.size
            return [(f.shape[1], f.shape[2]) for f in self._features(torch.zeros(1, 3, *size))]

    def _features(self, pixels_MCHW: Tensor) -> list[Tensor]:
        """Feature tokens M,N,C of each entry's depth, all pooled to the grid of the deepest."""
        maps = self.vision.maps(pixels_MCHW)
        grid = (maps[-1].shape[-2], maps[-1].shape[-1])
        chosen = [maps[max(0, round(entry.depth * len(maps)) - 1)] for entry in self.plan]
        return [F.adaptive_avg_pool2d(one, grid).flatten(2).transpose(1, 2) for one in chosen]

    def media_tokens(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Each kind's media as tokens M,K,D for each entry; a kind that the batch lacks but must run gets a dummy."""
        found = {}
        if batch.get("picture") is not None:
            with torch.no_grad():
                pixels = (batch["picture"].float() / 255 - self.pixel_mean) / self.pixel_std
                features = [one.detach() for one in self._features(pixels)]
            found["picture"] = self.connector(features)
        if batch.get("sound") is not None and self.hearing is not None and self.audio is not None:
            with torch.no_grad():
                heard = self.audio.tokens(batch["sound"]).detach()
            found["sound"] = self.hearing([heard] * len(self.plan))
        return found

    def embed(self, batch: Batch) -> Tensor:
        """Input embeddings R,L,D with media in their columns; what enters deeper is left in the context."""
        embeds_RLD = self.llm.get_input_embeddings()(batch["input_ids"])
        self._context.clear()
        tokens = self.media_tokens(batch)
        if not self.in_sequence:
            self._beside(batch, tokens)
            return embeds_RLD
        for at, entry in enumerate(self.plan):
            base_RLD = embeds_RLD if entry.layer == 0 else torch.zeros_like(embeds_RLD)
            placed_RLD = base_RLD
            for kind, found in tokens.items():
                placed_RLD = self._placed(placed_RLD, found[at], batch, kind)
            if entry.layer == 0:
                embeds_RLD = placed_RLD
            else:
                self._context.added[entry.layer] = placed_RLD
                if at == 0 and self.placeholder is not None:
                    for kind, found in tokens.items():
                        embeds_RLD = self._placed(embeds_RLD, self.placeholder.expand_as(found[0]), batch, kind)
        return embeds_RLD

    def _placed(self, rows_RLD: Tensor, tokens_MKD: Tensor, batch: Batch, kind: str) -> Tensor:
        """Tokens written into their columns; of a dummy, which belongs nowhere, nothing but a zero."""
        start_M = batch[f"{kind}_start"]
        count, width = len(start_M), tokens_MKD.shape[1]
        if len(tokens_MKD) > count:
            rows_RLD = rows_RLD + 0 * tokens_MKD[count:].sum()
        if not count:
            return rows_RLD
        columns_MK = start_M[:, None] + torch.arange(width, device=start_M.device)
        where = (batch[f"{kind}_row"][:, None].expand(-1, width), columns_MK)
        return rows_RLD.index_put(where, tokens_MKD[:count].to(rows_RLD.dtype))

    def _beside(self, batch: Batch, tokens: Mapping[str, list[Tensor]]) -> None:
        """Media tokens gathered by row, padded to the fullest row, for the gated cross-attention."""
        segment_RL = batch["segment"]
        rows, device = len(segment_RL), segment_RL.device
        owner = {kind: (batch[f"{kind}_row"], batch[f"{kind}_segment"]) for kind in tokens}
        for at, entry in enumerate(self.plan):
            gathered, segments = [], []
            for kind, found in tokens.items():
                row_M, segment_M = owner[kind]
                tokens_MKD, count = found[at], len(row_M)
                per_row = torch.bincount(row_M, minlength=rows)
                first = torch.cumsum(per_row, 0) - per_row
                order = torch.argsort(row_M, stable=True)
                slots = int(per_row.max()) if count else 1
                slot = torch.arange(count, device=device) - first[row_M[order]]
                held = tokens_MKD.new_zeros(rows, slots, *tokens_MKD.shape[1:])
                if count:
                    held = held.index_put((row_M[order], slot), tokens_MKD[:count][order])
                if len(tokens_MKD) > count:
                    held = held + 0 * tokens_MKD[count:].sum()
                of = torch.full((rows, slots), -1, device=device)
                if count:
                    of[row_M[order], slot] = segment_M[order]
                gathered.append(held.flatten(1, 2))
                segments.append(of.repeat_interleave(tokens_MKD.shape[1], 1))
            if gathered:
                self._context.seen[entry.layer] = torch.cat(gathered, 1)
                self._context.mask = segment_RL[:, :, None] == torch.cat(segments, 1)[:, None, :]

    def forward(self, batch: Batch, kl: bool = False, chunked: bool = True) -> dict[str, Tensor]:
        """Sums over the micro-batch: `loss`, and `kl` if asked for.

        Args:
            batch: as `training.data.rows.lay_out` makes it; position ids begin again at each sample.
            kl: also the divergence from the reference on the text alone.
        """
        hidden_RLD = self.hidden(self.llm, self.embed(batch), batch)
        self._context.clear()
        found = {"loss": self._loss(hidden_RLD, batch["labels"], chunked)}
        if kl:
            found["kl"] = self._divergence(text_only(batch, self.picture_tokens, self.sound_tokens))
        return found

    def hidden(self, llm: Any, embeds_RLD: Tensor, batch: Batch) -> Tensor:
        """A language model's last hidden states R,L,D."""
        mask = attention_mask(batch, self.attention, self.window)
        positions = batch["position_ids"]
        found = llm.base_model(inputs_embeds=embeds_RLD, position_ids=positions, attention_mask=mask, use_cache=False)
        return found.last_hidden_state

    def _loss(self, hidden_RLD: Tensor, labels_RL: Tensor, chunked: bool) -> Tensor:
        learned = labels_RL[:, 1:] != IGNORED
        hidden_ND, labels_N = hidden_RLD[:, :-1][learned], labels_RL[:, 1:][learned]
        return chunked_cross_entropy(hidden_ND, labels_N, self.llm.get_output_embeddings(), chunked)

    def _divergence(self, batch: Batch) -> Tensor:
        """KL(reference || model), summed over the learned positions of text without its media."""
        learned = batch["labels"][:, 1:] != IGNORED
        with torch.no_grad(), self._as_reference() as reference:
            embeds = reference.get_input_embeddings()(batch["input_ids"])
            known_ND = self.hidden(reference, embeds, batch)[:, :-1][learned]
            known_head = reference.get_output_embeddings()
        hidden_RLD = self.hidden(self.llm, self.llm.get_input_embeddings()(batch["input_ids"]), batch)
        return chunked_kl(known_ND, hidden_RLD[:, :-1][learned], known_head, self.llm.get_output_embeddings())

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The language model of before: the copy that was kept, or the same one with its adapters off."""
        if self.reference is not None:
            yield self.reference
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        adapted = [module for module in self.llm.modules() if isinstance(module, BaseTunerLayer)]
        for module in adapted:
            module.enable_adapters(False)
        try:
            yield self.llm
        finally:
            for module in adapted:
                module.enable_adapters(True)

    def keep_reference(self) -> None:
        """Keep a frozen copy of the LLM as it is now, for the KL term; outside the state that is saved."""
        copied = copy.deepcopy(self.llm).eval().requires_grad_(False)
        object.__setattr__(self, "reference", copied)

    @torch.no_grad()
    def generate(self, batch: Batch, tokens: int, eos: int) -> list[int]:
        """Greedy continuation of the one row of a batch.

        Args:
            batch: one row, no padding.
            tokens: at most so many.

        Returns:
            Token ids, the end-of-text token not among them.
        """
        from transformers import DynamicCache

        cache, head = DynamicCache(config=self.llm.config), self.llm.get_output_embeddings()
        embeds_RLD, position = self.embed(batch), batch["position_ids"]
        seen, mask = dict(self._context.seen), self._context.mask
        out: list[int] = []
        for _ in range(tokens):
            found = self.llm.base_model(
                inputs_embeds=embeds_RLD, position_ids=position, past_key_values=cache, use_cache=True
            )
            self._context.clear()
            token = int(head(found.last_hidden_state[:, -1:]).argmax())
            if token == eos:
                break
            out.append(token)
            embeds_RLD = self.llm.get_input_embeddings()(torch.tensor([[token]], device=embeds_RLD.device))
            position = position[:, -1:] + 1
            self._context.seen, self._context.mask = seen, None if mask is None else mask[:, -1:]
        self._context.clear()
        return out


def attention_mask(batch: Batch, implementation: str, window: int | None) -> Any:
    """What a language model needs besides position ids to keep packed samples apart.

    None: transformers finds the samples in the position ids, which begin again at each. A sliding window needs a mask
    of its own: bool R,1,L,L, or a block mask where flex attention can skip what is hidden.
    """
    if window is None and implementation != "flex_attention":
        return None
    segment_RL, length = batch["segment"], batch["segment"].shape[1]
    reach = length if window is None else window
    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            near = (query >= key) & (query - key < reach)
            return near & (segment_RL[row, query] == segment_RL[row, key])

        return create_block_mask(seen, len(segment_RL), None, length, length, device=str(segment_RL.device))
    at_L = torch.arange(length, device=segment_RL.device)
    back_LL = at_L[:, None] - at_L[None]
    near_LL = (back_LL >= 0) & (back_LL < reach)
    return (near_LL[None] & (segment_RL[:, :, None] == segment_RL[:, None, :]))[:, None]


def text_only(batch: Batch, picture_tokens: int, sound_tokens: int) -> dict[str, Tensor]:
    """The batch's rows without their media: the words move together, and no sample's first word is learned."""
    segment_RL = batch["segment"]
    kept_RL = segment_RL > 0
    for kind, width in (("picture", picture_tokens), ("sound", sound_tokens)):
        if width and len(batch[f"{kind}_start"]):
            columns = batch[f"{kind}_start"][:, None] + torch.arange(width, device=segment_RL.device)
            kept_RL = kept_RL.index_put((batch[f"{kind}_row"][:, None], columns), torch.tensor(False))
    order_RL = torch.argsort((~kept_RL).int(), dim=1, stable=True)
    segment_RL = segment_RL.masked_fill(~kept_RL, 0).gather(1, order_RL)
    labels_RL = batch["labels"].masked_fill(~kept_RL, IGNORED).gather(1, order_RL)
    starts_RL = segment_RL != F.pad(segment_RL, (1, 0), value=-1)[:, :-1]
    at_L = torch.arange(segment_RL.shape[1], device=segment_RL.device)
    first_RL = torch.where(starts_RL, at_L, 0).cummax(1).values
    return {
        "input_ids": batch["input_ids"].gather(1, order_RL),
        "labels": labels_RL.masked_fill(starts_RL, IGNORED),
        "segment": segment_RL,
        "position_ids": at_L - first_RL,
    }
