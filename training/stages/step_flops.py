"""The floating-point operations that a training step needs, for the MFU (model FLOPs utilisation)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.config import TrainConfig
from training.data.batch_types import Batch, PairBatch, RowBatch
from training.data.text_codec import IGNORED
from training.model.encoders import DualEncoder
from training.model.fusion import FusedLayer, decoder_list
from training.model.multimodal_lm import MultimodalLm
from training.model.packed_rows import text_only
from training.model.towers import HfText, OpenClipText
from training.stages.stage_model import StageModel, generative_settings

WINDOWLESS = 1 << 30  # tokens; longer than any row


class StepFlops:
    """Model FLOPs of a step (Chowdhery et al. 2022, PaLM): what it needs, whatever is computed to get it.

    Padding, recomputed activations and what a mask hides are not needed. A frozen part needs its forward pass, and a
    backward pass only if gradients pass through it. Attention is causal, within a document. The output head is needed
    where a token is learned. The products of a contrastive loss are left out: under 2% at 4,096 pairs per device.

    Towers and connectors are measured here, once, forward and backward, on one sample. The language model is counted by
    a formula, because its attention kernels hide their operations from torch's counter. The model is not kept. Build
    this before the model is cut, wrapped or compiled: FSDP2 can't run a part of a model alone.

    Args: built: on its device; its gradients are cleared.
    """

    def __init__(self, built: StageModel, config: TrainConfig) -> None:
        model = built.model.eval()
        cached = config.data.cache_features
        self._of: Callable[[Any], Tensor] = (
            _PairFlops(model, cached)
            if isinstance(model, DualEncoder)
            else _RowFlops(model, generative_settings(built.stage, config).kl_weight > 0, cached)
        )
        model.zero_grad(set_to_none=True)

    def of(self, batch: Batch) -> Tensor:
        """The operations of a step with this rank's batch: a float64 scalar on its device, which is not waited for."""
        return self._of(batch)


class _PairFlops:
    """Of stage `align`."""

    def __init__(self, model: DualEncoder, cached: bool) -> None:
        device = model.logit_scale.device
        pixels = torch.zeros(1, 3, *model.vision.preprocess.size, dtype=torch.uint8, device=device)
        pictures = _without_gradient(model.picture_body, pixels) if cached and model.vision.body_frozen else pixels
        self._picture = _measured(lambda: model.embed_pictures(pictures))
        self._sound = 0.0
        if model.audio is not None:
            audio, wave = model.audio, torch.zeros(1, model.audio.samples, device=device)
            self._sound = _measured(lambda: audio(wave))
        tokens = model.tokenize(["a"]).to(device)
        self._auxiliary = _measured(lambda: _auxiliary(model, tokens)) if model.masked is not None else 0.0
        self._context = tokens.shape[1]
        self._pad, self._is_causal = _padding_of(model.text)
        texts = _without_gradient(model.text.body, tokens) if cached and model.text.body_frozen else tokens
        self._caption, self._products = _measured_parts(lambda: model.embed_texts(texts))

    def __call__(self, batch: PairBatch) -> Tensor:
        tokens_B = pairs_B = torch.ones_like(
            batch.weight, dtype=torch.float64
        )  # as shares of a caption without padding
        if self._pad is not None and not batch.text.is_floating_point():
            places_T = torch.arange(1, batch.text.shape[1] + 1, device=batch.text.device)
            length_B = ((batch.text != self._pad) * places_T).amax(1).double()
            tokens_B = length_B / self._context
            pairs_B = tokens_B.square() if not self._is_causal else tokens_B * (length_B + 1) / (2 * self._context)
        total = (batch.weight * (tokens_B * self._caption + pairs_B * self._products)).sum()
        total = total + batch.weight.sum() * self._auxiliary
        return total + len(batch.picture_of) * self._picture + len(batch.sound_of) * self._sound


def _auxiliary(model: DualEncoder, tokens_1T: Tensor) -> Tensor:
    """The losses of one sample beside the contrastive one, with a picture, and with a sound if there is a tower."""
    device = tokens_1T.device
    first, none = torch.zeros(1, dtype=torch.long, device=device), torch.zeros(0, dtype=torch.long, device=device)
    pixels = torch.zeros(1, 3, *model.vision.preprocess.size, dtype=torch.uint8, device=device)
    sound = torch.zeros(1, model.audio.samples, device=device) if model.audio is not None else None
    batch = PairBatch(
        tokens_1T, torch.ones(1, device=device), first, first.bool(), pixels, first, sound,
        first if sound is not None else none, [], read=1, bad=0, consumed=0,
    )  # fmt: skip
    assert model.masked is not None
    sums = model.masked(model, model.normalised(pixels), sound, batch)
    return torch.stack([value for name, value in sums.items() if not name.endswith("_count")]).sum()


@dataclass
class _LanguageFlops:
    """Forward and backward operations of a language model."""

    token: float = 0.0  # for each token
    pair: float = 0.0  # for each pair of a token and one that it sees, itself among them
    learned: float = 0.0  # for each learned position: the output head

    def of(self, batch: RowBatch, window: int) -> Tensor:
        real_RL = batch.segment > 0
        pairs = ((batch.position_ids + 1).clamp_max(window) * real_RL).sum().double()
        learned = (batch.labels[:, 1:] != IGNORED).sum().double()
        return real_RL.sum().double() * self.token + pairs * self.pair + learned * self.learned


class _RowFlops:
    """Of stages `joint` and `instruct`."""

    def __init__(self, model: MultimodalLm, kl: bool, cached: bool) -> None:
        device = model.pixel_mean.device
        self._columns = (model.picture_tokens, model.sound_tokens)
        self._window = model.attention.window or WINDOWLESS
        pixels = torch.zeros(1, 3, *model.vision.preprocess.size, dtype=torch.uint8, device=device)
        pictures = _without_gradient(model.frozen_features, pixels) if cached else pixels
        tokens_of: dict[str, Callable[[], list[Tensor]]] = {}  # of one medium, for each entry of the fusion plan
        tokens_of["picture"] = lambda: model.connector(model.picture_features(pictures))
        if model.audio is not None and model.hearing is not None:
            hear, entries = model.hearing, len(model.plan)
            wave = torch.zeros(1, model.audio.samples, device=device)
            sounds = _without_gradient(model.sound_features, wave) if cached else wave
            tokens_of["sound"] = lambda: hear([model.sound_features(sounds)] * entries)
        self._medium = {kind: _measured(partial(_joined, tokens)) for kind, tokens in tokens_of.items()}
        # gradients flow into the first layer if a connector, or embeddings that are trained, are below it
        words = model.llm.get_input_embeddings().weight
        self._language = _of_language_model(model.llm, model.in_sequence or words.requires_grad)
        self._text_passes: list[_LanguageFlops] = []  # for the KL term: by the model itself, and by the reference
        if kl:
            self._text_passes = [
                _of_language_model(model.llm, words.requires_grad), _of_language_model(model.llm, False, trained=False)
            ]  # fmt: skip
        self._cross = _CrossFlops.of_layers(decoder_list(model.llm))
        with torch.no_grad():
            self._media_tokens = {kind: tokens()[0].shape[1] for kind, tokens in tokens_of.items()}

    def __call__(self, batch: RowBatch) -> Tensor:
        total = self._language.of(batch, self._window) + self._cross.of(batch, self._media_tokens)
        for kind, cost in self._medium.items():
            total = total + len(batch.media[kind].row) * cost
        if self._text_passes:
            text = text_only(batch, *self._columns)
            total = total + sum(flops.of(text, self._window) for flops in self._text_passes)
        return total


def _of_language_model(llm: Any, flows: bool, trained: bool = True) -> _LanguageFlops:
    """A language model's operations, without its gated cross-attention.

    Args:
        flows: whether gradients pass into the first layer from below.
        trained: False: the forward pass of the base model alone, without its adapters.
    """
    settings = llm.config.get_text_config()
    heads = int(settings.num_attention_heads)
    width = heads * int(getattr(settings, "head_dim", None) or settings.hidden_size // heads)
    flops = _LanguageFlops()
    for block in decoder_list(llm):
        layer = block.layer if isinstance(block, FusedLayer) else block
        # the first layer that trains anything counts as a whole, although its first products pass no gradient down
        flows = flows or (trained and _is_trained(block.parameters()))
        for name, weight in layer.named_parameters():
            if weight.ndim == 2 and (trained or "lora_" not in name):
                flops.token += 2.0 * weight.numel() * (1 + flows + (trained and weight.requires_grad))
        flops.pair += 4.0 * width * (3 if flows else 1)  # two products, and two more in the backward pass of each
    head = llm.get_output_embeddings().weight
    flops.learned = 2.0 * head.numel() * (1 + flows + (trained and head.requires_grad))
    return flops


@dataclass
class _CrossFlops:
    """Of gated cross-attention, whose weights are always trained."""

    text_token: float = 0.0
    media_token: float = 0.0
    pair: float = 0.0  # a token of text and one of the media that it sees

    @classmethod
    def of_layers(cls, layers: Iterable[nn.Module]) -> _CrossFlops:
        flops = cls()
        for cross in (layer.cross for layer in layers if isinstance(layer, FusedLayer) and layer.cross is not None):
            for name, weight in cross.named_parameters():
                if weight.ndim == 2 and name.startswith("attention.kv"):
                    flops.media_token += 6.0 * weight.numel()
                elif weight.ndim == 2:
                    flops.text_token += 6.0 * weight.numel()
            flops.pair += 12.0 * cross.attention.out.in_features
        return flops

    def of(self, batch: RowBatch, media_tokens: dict[str, int]) -> Tensor:
        """Args: media_tokens: of one medium of each kind."""
        total = (batch.segment > 0).sum().double() * self.text_token
        if not self.text_token:
            return total
        column_L = torch.arange(batch.segment.shape[1], device=batch.segment.device)
        for kind, width in media_tokens.items():
            media = batch.media[kind]
            own_ML = batch.segment[media.row] == media.segment[:, None]
            seen = (own_ML & (column_L >= media.start[:, None])).sum().double()
            total = total + width * (len(media.row) * self.media_token + seen * self.pair)
        return total


def _is_trained(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _padding_of(tower: Any) -> tuple[int | None, bool]:
    """The token that pads a tower's captions, None if the tower reads it like any other; and whether it is causal."""
    if isinstance(tower, HfText):
        return tower.pad, False
    text: Any = tower.text if isinstance(tower, OpenClipText) else None
    if hasattr(text, "pooler"):  # a Hugging Face encoder
        return int(text.config.pad_token_id), False
    reads_one_token = getattr(text, "pool_type", None) in ("argmax", "eos") and text.cls_emb is None
    if reads_one_token and text.attn_mask is not None:  # causal: what follows that token changes nothing
        return int(text.pad_id), True
    return None, False


@torch.no_grad()
def _without_gradient(tower: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    return tower(inputs)


def _joined(tokens: Callable[[], list[Tensor]]) -> Tensor:
    return torch.cat(tokens(), 1)


def _measured(forward: Callable[[], Tensor]) -> float:
    """The operations of a forward pass, and of a backward pass through what is trained."""
    return sum(_measured_parts(forward))


def _measured_parts(forward: Callable[[], Tensor]) -> tuple[float, float]:
    """The operations of `_measured` in layers that treat each token by itself, and in the products of attention."""
    counter = FlopCounterMode(display=False)
    had_fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know its operations
    try:
        # plain attention: its products are batched, unlike those with weights, and none is computed twice
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), counter:
            output = forward()
            if output.requires_grad:
                output.sum().backward()
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fast_path)
    products = float(counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0))
    return float(counter.get_total_flops()) - products, products
