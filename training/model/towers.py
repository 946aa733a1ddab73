"""Towers: they map pictures, captions and sound to embeddings, and pictures and sound to tokens for the LLM."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError
from mmdata.score.preprocess import Preprocess
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS
from training.data.media_tensors import SAMPLE_RATE
from training.model_config import Audio

_FFT, _HOP = 400, 160  # samples; a frame of the spectrogram is 10 ms
_PATCH = 16  # frames and mel bands


class Tower(nn.Module):
    """A tower of pictures or captions: a body, and a head that projects into the shared space."""

    body_frozen = False  # whether only the head is trained; set by `freeze_body`

    def body(self, inputs: Tensor) -> Tensor:
        """What the head reads."""
        raise NotImplementedError

    def head(self, features: Tensor) -> Tensor:
        """What the body gives -> B,D in the shared space, not of unit length."""
        raise NotImplementedError

    def head_names(self) -> tuple[str, ...]:
        """Names of the parameters and modules of the head."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of the body -> B,D in the shared space, not of unit length."""
        return self.head(self.body(inputs))

    def without_padding(self, tokens_BT: Tensor) -> Tensor:
        """Captions without the columns that only pad, which change nothing and take time."""
        return tokens_BT

    def is_of_head(self, name: str) -> bool:
        """Whether a parameter, buffer or module of this name is a part of the head."""
        return any(name == part or name.startswith(f"{part}.") for part in self.head_names())

    def freeze_body(self) -> None:
        """Train the head only."""
        self.body_frozen = True
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_of_head(name))


class OpenClipVision(Tower):
    """An open_clip image tower: its own ViT or ResNet, or a model of timm. It takes normalised pixels B,C,H,W."""

    def __init__(self, visual: Any, preprocess: Preprocess) -> None:
        super().__init__()
        self.visual = visual
        self.preprocess = preprocess

    def body(self, inputs: Tensor) -> Tensor:
        visual = self.visual
        if hasattr(visual, "trunk"):  # of timm
            return visual.trunk(inputs)
        if hasattr(visual, "attnpool"):  # CLIP's ResNet
            map_BChw = visual.stem(inputs)
            for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                map_BChw = layer(map_BChw)
            return map_BChw
        tokens_BNC = visual.transformer(visual._embeds(inputs))
        reads_first_only = visual.attn_pool is None and visual.pool_type == "tok"
        return tokens_BNC[:, :1] if reads_first_only else tokens_BNC

    def head(self, features: Tensor) -> Tensor:
        visual = self.visual
        if hasattr(visual, "trunk"):
            return visual.head(features)
        if hasattr(visual, "attnpool"):
            return visual.attnpool(features)
        pooled_BC, _ = visual._pool(features)
        return pooled_BC if visual.proj is None else pooled_BC @ visual.proj

    def maps(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Feature maps B,C,h,w at every depth, the deepest last."""
        outputs = self.visual.forward_intermediates(pixels_BCHW, intermediates_only=True)
        return list(outputs["image_intermediates"])

    def head_names(self) -> tuple[str, ...]:
        return ("visual.proj", "visual.head", "visual.ln_post", "visual.attn_pool", "visual.attnpool")


class HfVision(Tower):
    """A Hugging Face image encoder (ViT, Swin, DINOv2, …) and a projection. It takes normalised pixels B,C,H,W."""

    def __init__(self, model: nn.Module, dim: int, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.preprocess = preprocess
        config: Any = model.config
        self.proj = nn.Linear(config.hidden_size, dim, bias=False)
        for name, parameter in model.named_parameters():
            if name.endswith("mask_token"):  # used in its pretraining only, and DDP would wait for its gradient
                parameter.requires_grad_(False)

    def body(self, inputs: Tensor) -> Tensor:
        outputs = self.model(inputs)
        pooled = getattr(outputs, "pooler_output", None)
        return pooled if pooled is not None else outputs.last_hidden_state[:, 0]

    def head(self, features: Tensor) -> Tensor:
        return self.proj(features)

    def maps(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Feature maps B,C,h,w at every depth, the deepest last."""
        outputs = self.model(pixels_BCHW, output_hidden_states=True)
        if (spatial := getattr(outputs, "reshaped_hidden_states", None)) is not None:  # Swin returns B,C,h,w
            return list(spatial[1:])
        config: Any = self.model.config
        patch = config.patch_size
        sides = (patch, patch) if isinstance(patch, int) else tuple(patch)
        grid = (pixels_BCHW.shape[-2] // sides[0], pixels_BCHW.shape[-1] // sides[1])
        maps = []
        for hidden_BND in (*outputs.hidden_states[1:-1], outputs.last_hidden_state):
            patches = hidden_BND[:, hidden_BND.shape[1] - grid[0] * grid[1] :]  # class and register tokens come first
            maps.append(patches.transpose(1, 2).unflatten(2, grid))
        return maps

    def head_names(self) -> tuple[str, ...]:
        return ("proj",)


class OpenClipText(Tower):
    """An open_clip text tower: its own transformer, or a Hugging Face encoder in it. It takes tokens B,T."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text

    def body(self, inputs: Tensor) -> Tensor:
        text = self.text
        if hasattr(text, "pooler"):
            mask_BT = self._mask(inputs)
            return text.pooler(text.transformer(input_ids=inputs, attention_mask=mask_BT), mask_BT)
        from open_clip.transformer import text_global_pool

        hidden_BTC = self._hidden(inputs)
        pool_type = text.pool_type if text.cls_emb is None else "last"
        # A layer norm treats each token by itself, so pooling may come before it.
        return text_global_pool(hidden_BTC, inputs, pool_type=pool_type, eos_token_id=getattr(text, "eos_id", None))

    def tokens(self, inputs: Tensor) -> Tensor:
        """A vector for each token B,T,C, before they are pooled."""
        text = self.text
        if hasattr(text, "pooler"):  # a Hugging Face encoder
            return text.transformer(input_ids=inputs, attention_mask=self._mask(inputs)).last_hidden_state
        return self._hidden(inputs)[:, : inputs.shape[1]]  # CoCa's class token comes last

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        text = self.text
        table = text.transformer.get_input_embeddings() if hasattr(text, "pooler") else text.token_embedding
        return int(table.num_embeddings)

    def _mask(self, inputs: Tensor) -> Tensor:
        return (inputs != self.text.config.pad_token_id).long()

    def _hidden(self, inputs: Tensor) -> Tensor:
        hidden_BTC, mask = self.text._embeds(inputs)
        return self.text.transformer(hidden_BTC, attn_mask=mask)

    def without_padding(self, tokens_BT: Tensor) -> Tensor:
        reads_a_mask = hasattr(self.text, "pooler")
        return _without_padding(tokens_BT, self.text.config.pad_token_id) if reads_a_mask else tokens_BT

    def head(self, features: Tensor) -> Tensor:
        text = self.text
        if hasattr(text, "pooler"):
            return text.proj(features)
        normed_BC, projection = text.ln_final(features), text.text_projection
        if projection is None:
            return normed_BC
        return projection(normed_BC) if isinstance(projection, nn.Linear) else normed_BC @ projection

    def head_names(self) -> tuple[str, ...]:
        return ("text.text_projection", "text.proj", "text.ln_final")


class HfText(Tower):
    """A Hugging Face text encoder, mean pooling, and a projection. It takes tokens B,T."""

    def __init__(self, model: Any, dim: int, pad: int) -> None:
        super().__init__()
        self.model, self.pad = model, pad
        if hasattr(model, "pooler"):  # BERT's pooler is not used here, and DDP would wait for its gradient
            model.pooler = None
        self.proj = nn.Linear(model.config.hidden_size, dim, bias=False)

    def body(self, inputs: Tensor) -> Tensor:
        mask_BT = self._mask(inputs)
        hidden_BTD = self.model(inputs, attention_mask=mask_BT).last_hidden_state
        weight_BT1 = mask_BT[..., None].to(hidden_BTD.dtype)
        return (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1)

    def tokens(self, inputs: Tensor) -> Tensor:
        """A vector for each token B,T,C, before they are pooled."""
        return self.model(inputs, attention_mask=self._mask(inputs)).last_hidden_state

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def _mask(self, inputs: Tensor) -> Tensor:
        mask_BT = (inputs != self.pad).long()
        mask_BT[:, 0] = 1  # so that an empty caption has a token to pool
        return mask_BT

    def without_padding(self, tokens_BT: Tensor) -> Tensor:
        return _without_padding(tokens_BT, self.pad)

    def head(self, features: Tensor) -> Tensor:
        return self.proj(features)

    def head_names(self) -> tuple[str, ...]:
        return ("proj",)


def _without_padding(tokens_BT: Tensor, pad: int) -> Tensor:
    used = (tokens_BT != pad).any(0).nonzero()
    return tokens_BT[:, : int(used.max()) + 1 if len(used) else 1]


class AudioTower(nn.Module):
    """Maps 16 kHz sound to tokens: Wav2Vec2 on the wave, or a ViT on a log-mel spectrogram (AST, Gong et al. 2021)."""

    bank: Tensor

    def __init__(self, config: Audio, dim: int) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        self.kind, self.mel_bins = config.kind, config.mel_bins
        self.frames = round(config.seconds * SAMPLE_RATE / _HOP) // _PATCH * _PATCH
        bank = mel_filter_bank(_FFT // 2 + 1, self.mel_bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")
        self.register_buffer("bank", torch.from_numpy(bank.astype(np.float32)), persistent=False)
        self.segment_count = self.frames // _PATCH  # of 160 ms
        if config.kind == "wav2vec2":
            self.model: Any = _wav2vec2(config)
        else:
            from transformers import ViTConfig, ViTModel

            size = (self.mel_bins, self.frames)
            settings = {"num_channels": 1, "image_size": size, "patch_size": _PATCH, **config.config}
            self.model = ViTModel(ViTConfig(**settings), add_pooling_layer=False)
        self.width = int(self.model.config.hidden_size)
        self.proj = nn.Linear(self.width, dim, bias=False)
        self.samples = round(config.seconds * SAMPLE_RATE)

    def forward(self, wave_BS: Tensor) -> Tensor:
        """Sound -> B,D in the shared space."""
        return self.proj(self.tokens(wave_BS).mean(1))

    def tokens(self, wave_BS: Tensor) -> Tensor:
        """Sound -> B,N,width."""
        if self.kind == "wav2vec2":
            wave_BS = (wave_BS - wave_BS.mean(1, keepdim=True)) / (wave_BS.std(1, keepdim=True) + 1e-5)
            return self.model(wave_BS).last_hidden_state
        return self.model(self.log_mel(wave_BS)).last_hidden_state[:, 1:]

    def segments(self, wave_BS: Tensor) -> Tensor:
        """Sound -> B,K,width: the mean of the tokens in each of its segments of 160 ms."""
        tokens_BCN = self.tokens(wave_BS).transpose(1, 2)
        if self.kind == "logmel_vit":  # its tokens are rows of a spectrogram, and a row is all of the time
            side = self.model.config.patch_size
            rows = self.mel_bins // (side if isinstance(side, int) else side[0])
            tokens_BCN = tokens_BCN.unflatten(2, (rows, -1)).mean(2)
        return F.adaptive_avg_pool1d(tokens_BCN, self.segment_count).transpose(1, 2)

    def log_mel(self, wave_BS: Tensor) -> Tensor:
        """Log power in mel bands, scaled to about unit variance: B,1,mel,frames."""
        window = torch.hann_window(_FFT, device=wave_BS.device)
        with torch.autocast(wave_BS.device.type, enabled=False):
            spectrum = torch.stft(wave_BS.float(), _FFT, _HOP, window=window, return_complex=True)
            power_BFT = spectrum.abs().square()[..., : self.frames]
            mel_BMT = (self.bank.T @ power_BFT).clamp_min(1e-10).log10()
        mel_BMT = F.pad(mel_BMT, (0, self.frames - mel_BMT.shape[-1]), value=-10.0)
        return ((mel_BMT + 4) / 4)[:, None]


def _wav2vec2(config: Audio) -> Any:
    """A Wav2Vec2 model. Raises UserError if it cannot be loaded."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    # Its pretraining draws masks and dropped layers from numpy. No step seeds these draws, so none could be replayed.
    no_masks = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
    try:
        if config.model:
            return Wav2Vec2Model.from_pretrained(config.model, trust_remote_code=False, **no_masks)
        return Wav2Vec2Model(Wav2Vec2Config(**{**config.config, **no_masks}))
    except (OSError, ValueError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(
            f"model.audio: {config.model or config.config} cannot be loaded: {str(error).splitlines()[0]}. "
            "Remedy: a hub id or folder of Wav2Vec2 weights, or settings of a Wav2Vec2Config."
        ) from error
