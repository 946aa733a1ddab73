"""The multimodal language model: frozen encoders, a connector, and a causal LLM."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError
from training.data.batch_types import RowBatch
from training.data.text_codec import IGNORED
from training.model.attention import PackedAttention, has_own_windows, keep_dtype_in_norms
from training.model.encoders import DualEncoder, from_cache
from training.model.fusion import (
    FusedLayer,
    GatedCrossAttention,
    MediaContext,
    Projector,
    Resampler,
    decoder_list,
    fusion_plan,
)
from training.model.losses import chunked_cross_entropy, chunked_kl
from training.model.packed_rows import learned_positions, media_by_row, text_only, with_media
from training.model_config import Model


class Connector(nn.Module):
    """Projects an encoder's features to the LLM's width, for each entry of the fusion plan."""

    def __init__(
        self, widths: Sequence[int], hidden: int, dim: int, heads: int, queries: int | None, kind: str = "norm_mlp"
    ) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(Projector(width, hidden, dim, kind) for width in widths)
        self.resampler = Resampler(dim, queries, heads) if queries is not None else None

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features M,N,C of each entry -> tokens M,K,D of each entry."""
        tokens = [projector(entry_MNC) for projector, entry_MNC in zip(self.projectors, features, strict=True)]
        return [self.resampler(entry_MND) for entry_MND in tokens] if self.resampler is not None else tokens


class MultimodalLm(nn.Module):
    """Frozen encoders, a connector, and a causal LLM.

    In `single_tower` the media tokens are in the rows, at columns that the batch leaves free. In `cross_attention`
    they are outside the rows, and layers of the LLM attend to them. `forward` returns sums, not means, because the
    caller divides by one count over all ranks.

    Args:
        encoder: its text tower is not used.
        llm: any Hugging Face causal language model.
    """

    llm: Any
    reference: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, encoder: DualEncoder, llm: Any, config: Model) -> None:
        super().__init__()
        self.vision, self.audio = encoder.vision, encoder.audio
        self.register_buffer("pixel_mean", encoder.pixel_mean, persistent=False)
        self.register_buffer("pixel_std", encoder.pixel_std, persistent=False)
        self.llm = llm
        self.settings = config
        self.in_sequence = config.architecture == "single_tower"
        settings = llm.config.get_text_config()
        self.dim, heads = int(settings.hidden_size), int(settings.num_attention_heads)
        self.attention = PackedAttention(config.llm.attention, config.llm.sliding_window)
        if self.attention.window is not None and has_own_windows(llm):
            raise UserError(
                f"model.llm.sliding_window: {type(llm).__name__} has layers with windows of their own. "
                "Remedy: leave sliding_window out."
            )
        keep_dtype_in_norms(llm)
        layers = decoder_list(llm)
        self.plan = fusion_plan(config.architecture, config.fusion, len(layers))
        self._reads_embedding = config.picture_features == "embedding"
        self._context = MediaContext()
        for entry in self.plan:  # media that enter at the first layer are in its input, the embeddings
            if not (self.in_sequence and entry.layer == 0):
                cross = None if self.in_sequence else GatedCrossAttention(self.dim, heads)
                layers[entry.layer] = FusedLayer(layers[entry.layer], entry.layer, self._context, cross)
        queries = config.queries if config.fusion == "attention" else None
        hidden = config.connector_width or self.dim
        with torch.no_grad():
            blank = torch.zeros(1, 3, *self.vision.preprocess.size)
            features = [self._embedding(self.vision.body(blank))] if self._reads_embedding else self._maps(blank)
            features *= len(self.plan) // len(features)
        self._widths = [entry_MNC.shape[2] for entry_MNC in features]
        self.connector = Connector(self._widths, hidden, self.dim, heads, queries, config.projector)
        self.picture_tokens = (queries or features[0].shape[1]) if self.in_sequence else 0
        self.hearing: Connector | None = None
        self.sound_tokens = 0
        if self.audio is not None:
            with torch.no_grad():
                tokens = self.audio.tokens(torch.zeros(1, self.audio.samples)).shape[1]
            self.hearing = Connector(
                [self.audio.width] * len(self.plan), hidden, self.dim, heads, queries, config.projector
            )
            self.sound_tokens = (queries or tokens) if self.in_sequence else 0
        # If media enter deeper than the first layer, their columns need an input of their own below that layer.
        is_deep = self.in_sequence and self.plan[0].layer > 0
        self.placeholder = nn.Parameter(torch.randn(self.dim) * 0.02) if is_deep else None
        object.__setattr__(self, "reference", None)  # not a submodule, so it is neither saved nor sharded

    def picture_features(self, pictures: Tensor) -> list[Tensor]:
        """Features M,N,C of each entry of the plan, all pooled to the grid of the deepest feature map.

        Args: pictures: uint8 M,3,H,W, or what `frozen_features` gave for them, from a cache.
        """
        features = from_cache(pictures) if pictures.is_floating_point() else self.frozen_features(pictures)
        if self._reads_embedding:
            return [self._embedding(features)] * len(self.plan)
        return list(features.split(self._widths, dim=2))

    def frozen_features(self, pixels_MCHW: Tensor) -> Tensor:
        """All that the model reads of pictures, for `picture_features`.

        Args: pixels_MCHW: uint8.
        Returns: M,N,C with the entries' features after one another; what the image tower's body gives, if the embedding
            is read.
        """
        normalised = (pixels_MCHW.float() / 255 - self.pixel_mean) / self.pixel_std
        return self.vision.body(normalised) if self._reads_embedding else torch.cat(self._maps(normalised), dim=2)

    def _embedding(self, features: Tensor) -> Tensor:
        """M,1,C: the vector of the shared space, from what the image tower's body gives."""
        return self.vision.head(features)[:, None]

    def _maps(self, normalised_MCHW: Tensor) -> list[Tensor]:
        maps = self.vision.maps(normalised_MCHW)
        count = len(maps) + 1 + self.settings.picture_layer
        if count < 1:
            raise UserError(
                f"model.picture_layer {self.settings.picture_layer}: the image tower has {len(maps)} feature maps. "
                f"Remedy: a layer from -{len(maps)} to -1."
            )
        maps = maps[:count]
        grid = (maps[-1].shape[-2], maps[-1].shape[-1])
        chosen = [maps[max(0, round(entry.depth * len(maps)) - 1)] for entry in self.plan]
        return [F.adaptive_avg_pool2d(map_MChw, grid).flatten(2).transpose(1, 2) for map_MChw in chosen]

    def sound_features(self, sounds: Tensor) -> Tensor:
        """Features M,N,C. Args: sounds: float32 M,S at 16 kHz, or cached features M,N,C."""
        assert self.audio is not None
        return from_cache(sounds) if sounds.ndim == 3 else self.audio.tokens(sounds)

    def media_tokens(self, batch: RowBatch) -> dict[str, list[Tensor]]:
        """Tokens M,K,D of each kind of media that the batch has, for each entry of the plan."""
        tokens = {}
        if batch.picture.data is not None:
            with torch.no_grad():
                features = [entry_MNC.detach() for entry_MNC in self.picture_features(batch.picture.data)]
            tokens["picture"] = self.connector(features)
        if batch.sound.data is not None and self.hearing is not None and self.audio is not None:
            with torch.no_grad():
                sound_MNC = self.sound_features(batch.sound.data).detach()
            tokens["sound"] = self.hearing([sound_MNC] * len(self.plan))
        return tokens

    def embed(self, batch: RowBatch) -> Tensor:
        """Input embeddings R,L,D with media in their columns. What enters at deeper layers is put into the context."""
        embeds_RLD = self.llm.get_input_embeddings()(batch.input_ids)
        self._context.clear()
        tokens = self.media_tokens(batch)
        if not self.in_sequence:
            self._set_cross_attention(batch, tokens)
            return embeds_RLD
        for at, entry in enumerate(self.plan):
            placed_RLD = embeds_RLD if entry.layer == 0 else torch.zeros_like(embeds_RLD)
            for kind, entries in tokens.items():
                placed_RLD = with_media(placed_RLD, entries[at], batch.media[kind])
            if entry.layer == 0:
                embeds_RLD = placed_RLD
                continue
            self._context.added[entry.layer] = placed_RLD
            if at == 0 and self.placeholder is not None:
                for kind, entries in tokens.items():
                    embeds_RLD = with_media(embeds_RLD, self.placeholder.expand_as(entries[0]), batch.media[kind])
        return embeds_RLD

    def _set_cross_attention(self, batch: RowBatch, tokens: Mapping[str, list[Tensor]]) -> None:
        """Put the media tokens of each row into the context, with the mask of which position sees which token.

        A position sees the media of its own sample that stand before it, so that no text of a document sees a later
        picture.
        """
        rows, length = batch.segment.shape
        column_L = torch.arange(length, device=batch.segment.device)
        for at, entry in enumerate(self.plan):
            by_kind = [media_by_row(entries[at], batch.media[kind], rows) for kind, entries in tokens.items()]
            if by_kind:
                tokens_RTD, segments_RT, starts_RT = (torch.cat(parts, 1) for parts in zip(*by_kind, strict=True))
                self._context.seen[entry.layer] = tokens_RTD
                is_own_RLT = batch.segment[:, :, None] == segments_RT[:, None, :]
                self._context.mask = is_own_RLT & (column_L[:, None] >= starts_RT[:, None, :])

    def forward(self, batch: RowBatch, kl: bool = False, chunked: bool = True) -> dict[str, Tensor]:
        """Sums over the learned tokens of the batch: `loss`, and `kl`.

        Args:
            kl: also compute the divergence from the reference model, on the text without media.
            chunked: compute the logits in chunks.
        """
        hidden_RLD = self.hidden(self.llm, self.embed(batch), batch)
        self._context.clear()
        sums = {"loss": self._loss(hidden_RLD, batch, chunked)}
        if kl:
            sums["kl"] = self._divergence(text_only(batch, self.picture_tokens, self.sound_tokens))
        return sums

    def hidden(self, llm: Any, embeds_RLD: Tensor, batch: RowBatch) -> Tensor:
        """A language model's last hidden states R,L,D."""
        return self.attention.hidden(llm, embeds_RLD, batch.position_ids, batch.most_documents)

    def _loss(self, hidden_RLD: Tensor, batch: RowBatch, chunked: bool) -> Tensor:
        hidden_ND, labels_N = learned_positions(hidden_RLD, batch.labels, batch.most_learned)
        return chunked_cross_entropy(hidden_ND, labels_N, self.llm.get_output_embeddings(), chunked)

    def _divergence(self, batch: RowBatch) -> Tensor:
        """KL(reference || model), summed over the learned positions of rows without media."""
        most = batch.most_learned
        words_RLD = self.llm.get_input_embeddings()(batch.input_ids)
        with torch.no_grad(), self._as_reference() as reference:
            embeds = reference.get_input_embeddings()(batch.input_ids).to(words_RLD.dtype)  # one residual stream's type
            known_RLD = self.hidden(reference, embeds, batch)
            reference_ND, _ = learned_positions(known_RLD, batch.labels, most)
            reference_head = reference.get_output_embeddings()
        hidden_ND, labels_N = learned_positions(self.hidden(self.llm, words_RLD, batch), batch.labels, most)
        is_learned_N = labels_N != IGNORED
        return chunked_kl(reference_ND, hidden_ND, reference_head, self.llm.get_output_embeddings(), is_learned_N)

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The language model before training: the copy that was kept, or the same model with its adapters off."""
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

    def keep_reference(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep a frozen copy of the LLM as it is now, for the KL term. Checkpoints do not hold it.

        Args: dtype: of its weights. Buffers keep theirs, since the angles of rotary positions need fp32.
        """
        copied = copy.deepcopy(self.llm).eval().requires_grad_(False)
        for parameter in copied.parameters():
            parameter.data = parameter.data.to(dtype)
        object.__setattr__(self, "reference", copied.to(device))

    @torch.no_grad()
    def generate(self, batch: RowBatch, tokens: int, ends: Collection[int]) -> list[list[int]]:
        """Continue each row of a batch with the most likely tokens.

        Args:
            batch: rows of one sample each, without padding.
            tokens: at most so many are generated.
            ends: tokens at which an answer ends.

        Returns: The token ids of each row, up to its end and without it.
        """
        from transformers import DynamicCache

        cache, head = DynamicCache(config=self.llm.config), self.llm.get_output_embeddings()
        embeds_RLD, position = self.embed(batch), batch.position_ids
        seen, mask = dict(self._context.seen), self._context.mask
        generated: list[Tensor] = []
        is_done_R = torch.zeros(len(embeds_RLD), dtype=torch.bool, device=embeds_RLD.device)
        ends_E = torch.tensor(sorted(ends), dtype=torch.long, device=embeds_RLD.device)
        for _ in range(tokens):
            hidden_RLD = self.attention.next_hidden(self.llm, embeds_RLD, position, cache)
            self._context.clear()
            token_R1 = head(hidden_RLD[:, -1:]).argmax(-1)
            is_done_R = is_done_R | torch.isin(token_R1[:, 0], ends_E)
            if bool(is_done_R.all()):
                break
            generated.append(token_R1)
            embeds_RLD = self.llm.get_input_embeddings()(token_R1)
            position = position[:, -1:] + 1
            self._context.seen, self._context.mask = seen, None if mask is None else mask[:, -1:]
        self._context.clear()
        rows = torch.cat(generated, 1).tolist() if generated else [[] for _ in range(len(batch.input_ids))]
        return [list(takewhile(lambda token: token not in ends, row)) for row in rows]
