"""The towers that stage 1 aligns, and how they are built from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError
from mmdata.score.preprocess import Preprocess
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS, forbid_remote_code
from training.config import Audio, Encoder
from training.data.tensors import MediaSpec
from training.model.masked import MaskedPrediction
from training.model.towers import AudioTower, HfText, HfVision, OpenClipText, OpenClipVision

Tokenize = Callable[[list[str]], Tensor]


class DualEncoder(nn.Module):
    """The towers that stage 1 aligns.

    Args:
        vision, text: towers into one space.
        tokenize: captions -> int64 B,T, for `text`.
        audio: a tower into the same space, or None.
        temperature, bias: of the logits: exp(temperature) multiplies the cosine; SigLIP adds the bias.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        vision: OpenClipVision | HfVision,
        text: OpenClipText | HfText,
        tokenize: Tokenize,
        audio: AudioTower | None = None,
        temperature: float = float(np.log(1 / 0.07)),
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.vision, self.text, self.audio = vision, text, audio
        self.masked: MaskedPrediction | None = None
        self.tokenize = tokenize
        self.logit_scale = nn.Parameter(torch.tensor([temperature]))  # FSDP2 takes no scalars
        self.logit_bias = nn.Parameter(torch.tensor([bias]))
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (vision.preprocess.mean, vision.preprocess.std))
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    def forward(self, batch: Mapping[str, Any], masked: bool = False) -> dict[str, Tensor]:
        """Embeddings of a batch of pairs.

        Args:
            batch: as `training.data.loader.PairReader` makes it.
            masked: also predict hidden patches (`masked` and `masked_count`, sums).

        Returns:
            text, visual, audio: B,D of unit length; a sample's frames are averaged; zero where it has no such medium.
            scale, bias: of the logits.
        """
        count = len(batch["weight"])
        pixels = batch["picture"] if batch["picture"] is not None else self._no_picture(batch["text"].device)
        pixels = self.normalised(pixels)
        text_BD = self.text(batch["text"])
        found = {
            "text": F.normalize(text_BD.float(), dim=-1),
            "visual": _averaged(self.vision(pixels), batch["picture_of"], count),
            "scale": self.logit_scale * 1,
            "bias": self.logit_bias * 1,
        }
        if self.audio is not None:
            empty = torch.zeros(1, self.audio.samples, device=pixels.device)
            sound = batch["sound"] if batch["sound"] is not None else empty
            found["audio"] = _averaged(self.audio(sound), batch["sound_of"], count)
        if masked and self.masked is not None:
            found |= self.masked(self.vision, pixels, text_BD, batch["picture_of"])
        return found

    def normalised(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 -> float32 as the vision tower takes it."""
        return (pixels_BCHW.float() / 255 - self.pixel_mean) / self.pixel_std

    def _no_picture(self, device: torch.device) -> Tensor:
        """A stand-in where this rank has no picture: what it gives is multiplied by zero, and no rank waits."""
        return torch.zeros(1, 3, *self.vision.preprocess.size, dtype=torch.uint8, device=device)

    def spec(self, frames: int = 8) -> MediaSpec:
        """What the reader has to decode for these towers."""
        return MediaSpec(self.vision.preprocess, frames, self.audio.samples if self.audio else 0)


def _averaged(features_MD: Tensor, owner_M: Tensor, count: int) -> Tensor:
    """B,D of unit length: each sample's mean feature; without owners (a stand-in) zero, with a gradient of zero."""
    features_MD = features_MD.float()
    if not len(owner_M):
        return features_MD.sum() * 0 + torch.zeros(count, features_MD.shape[1], device=features_MD.device)
    sums = torch.zeros(count, features_MD.shape[1], device=features_MD.device).index_add(
        0, owner_M, F.normalize(features_MD, dim=-1)
    )
    return F.normalize(sums, dim=-1)


def build_encoder(config: Encoder, audio: Audio) -> DualEncoder:
    """The towers that a configuration names, on the CPU.

    Raises:
        UserError: an unknown model or weights that cannot be loaded.
    """
    if config.kind == "hf":
        return _hf_encoder(config, audio)
    clip, tokenize = _demo_clip() if config.kind == "demo" else _open_clip(config)
    preprocess = Preprocess.from_open_clip(clip.visual.preprocess_cfg)
    with torch.no_grad():
        dim = clip.visual(torch.zeros(1, 3, *preprocess.size)).shape[1]
    return DualEncoder(
        OpenClipVision(clip.visual, preprocess),
        OpenClipText(clip.text),
        tokenize,
        AudioTower(audio, dim) if audio.kind != "none" else None,
        float(clip.logit_scale.detach()),
        float(clip.logit_bias.detach()) if getattr(clip, "logit_bias", None) is not None else 0.0,
    )


def _demo_clip() -> tuple[Any, Tokenize]:
    from mmdata.score.offline import build

    clip, _, tokenizer = build()
    return clip, tokenizer


def _open_clip(config: Encoder) -> tuple[Any, Tokenize]:
    import open_clip
    from open_clip.model import CustomTextCLIP

    if config.config is not None:
        try:
            clip = CustomTextCLIP(**open_clip_settings(config.config))
            clip.visual.preprocess_cfg = preprocess_settings(config.config)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"model.encoder.config: open_clip builds no model of it: {error!r}") from error
        context = config.config["text_cfg"].get("context_length", 77)
        return clip, open_clip.SimpleTokenizer(context_length=context)
    from mmdata.config import Score
    from mmdata.score.pretrained import check_names

    if config.pretrained is not None or config.model.startswith(("local-dir:", "hf-hub:")):
        check_names(Score(model=config.model, pretrained=config.pretrained))
    elif config.model not in open_clip.list_models():
        raise UserError(f"model.encoder.model: open_clip has no model {config.model!r}")
    forbid_remote_code()
    try:
        clip = open_clip.create_model(
            config.model,
            config.pretrained,
            force_custom_text=True,
            pretrained_text=False,
            weights_only=True,
        )
        return clip, open_clip.get_tokenizer(config.model)
    except (OSError, RuntimeError, ValueError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(f"model.encoder: {config.model} cannot be loaded: {str(error).splitlines()[0]}") from error


def open_clip_settings(config: dict[str, Any]) -> dict[str, Any]:
    """CustomTextCLIP's own arguments out of a model config as open_clip writes them to JSON."""
    own = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias")
    return {key: value for key, value in config.items() if key in own}


def preprocess_settings(config: dict[str, Any]) -> dict[str, Any]:
    """open_clip's preprocess_cfg of a model built from a config: plain mean and deviation of one half, squashed."""
    size = config["vision_cfg"]["image_size"]
    half = (0.5, 0.5, 0.5)
    settings = {"size": size, "mode": "RGB", "mean": half, "std": half, "interpolation": "bicubic", "fill_color": 255}
    return {**settings, "resize_mode": "squash"}


def _hf_encoder(config: Encoder, audio: Audio) -> DualEncoder:
    from training.data.tokens import load_tokenizer

    vision = _hf_model(config.model, config.config, "model.encoder")
    text = _hf_model(config.text_model, config.text_config, "model.encoder.text")
    for name in ("image_size", "hidden_size"):
        if not hasattr(vision.config, name):
            raise UserError(f"model.encoder: {type(vision).__name__} has no {name}. Remedy: a ViT, DINOv2 or Swin")
    size = vision.config.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    tokenizer = load_tokenizer(config.tokenizer or config.text_model or "bytes")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    length = min(config.context_length, int(getattr(text.config, "max_position_embeddings", config.context_length)))

    def tokenize(captions: list[str]) -> Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return tokenizer(captions, **options)["input_ids"]

    return DualEncoder(
        HfVision(vision, config.embed_dim, _hf_preprocess(None if config.config else config.model, size)),
        HfText(text, config.embed_dim, int(tokenizer.pad_token_id or 0)),
        tokenize,
        AudioTower(audio, config.embed_dim) if audio.kind != "none" else None,
    )


def _hf_preprocess(name: str | None, size: tuple[int, int]) -> Preprocess:
    """What the model's own image processor says; where there is none, mean and deviation of one half."""
    from transformers import AutoImageProcessor

    half = (0.5, 0.5, 0.5)
    try:
        told = AutoImageProcessor.from_pretrained(name, trust_remote_code=False) if name is not None else None
    except (OSError, ValueError):
        told = None
    if told is None:
        return Preprocess(size=size, mean=half, std=half)
    return Preprocess(
        size=size,
        mean=tuple(told.image_mean or half),
        std=tuple(told.image_std or half),
        interpolation="bilinear" if told.resample == 2 else "bicubic",  # Pillow's numbers
        resize_mode="shortest" if told.size.get("shortest_edge") else "squash",
    )


def _hf_model(name: str | None, settings: dict[str, Any] | None, key: str) -> Any:
    from transformers import AutoConfig, AutoModel

    try:
        if settings is not None:
            return AutoModel.from_config(AutoConfig.for_model(**settings))
        if name is None:
            raise UserError(f"{key}: kind `hf` needs a model, or a config of one")
        return AutoModel.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(f"{key}: {name or settings} cannot be loaded: {str(error).splitlines()[0]}") from error


def freeze_all_but(tower: nn.Module, names: Sequence[str]) -> None:
    """Freeze a tower but for the parameters under these names."""
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(any(name == kept or name.startswith(f"{kept}.") for kept in names))
