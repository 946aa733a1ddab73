"""The dual encoder that stage 1 aligns, and how it is built from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError
from mmdata.score.hf_dual_encoder import HALF, load_dual_encoder, processor_preprocess
from mmdata.score.preprocess import Preprocess
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS, forbid_remote_code
from training.data.batch_types import PairBatch
from training.model.hf_dual_towers import HfDualText, HfDualVision, dual_towers
from training.model.masked_prediction import MaskedPrediction
from training.model.towers import AudioTower, HfText, HfVision, OpenClipText, OpenClipVision
from training.model_config import Audio, Encoder

Tokenize = Callable[[list[str]], Tensor]


class DualEncoder(nn.Module):
    """An image tower, a text tower and perhaps a sound tower, which map into one space.

    Args:
        tokenize: captions -> int64 B,T, for `text`.
        temperature, bias: of the logits: exp(temperature) multiplies the cosine, and SigLIP adds the bias.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        vision: OpenClipVision | HfVision | HfDualVision,
        text: OpenClipText | HfText | HfDualText,
        tokenize: Tokenize,
        audio: AudioTower | None = None,
        temperature: float = float(np.log(1 / 0.07)),
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.vision, self.text, self.audio = vision, text, audio
        self.masked: MaskedPrediction | None = None
        self.match_scale: nn.Parameter | None = None  # scale and bias of the logits of loss `bce`
        self.match_bias: nn.Parameter | None = None
        self.tokenize = tokenize
        self.logit_scale = nn.Parameter(torch.tensor([temperature]))  # not a scalar: FSDP2 cannot shard those
        self.logit_bias = nn.Parameter(torch.tensor([bias]))
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (vision.preprocess.mean, vision.preprocess.std))
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    def forward(self, batch: PairBatch, masked: bool = False) -> dict[str, Tensor]:
        """Embeddings of a batch of pairs.

        Args: masked: also predict what is hidden of media and captions; adds the sums of MaskedPrediction.

        Returns:
            text, visual, audio: B,D of unit length, a sample's frames averaged; zero for a sample without the medium.
            scale, bias, and perhaps match_scale, match_bias: of the logits.
        """
        count, device = len(batch.weight), batch.text.device
        # Without a picture or sound the tower runs on zeros, whose features count nothing, so that no rank waits.
        no_picture = torch.zeros(1, 3, *self.vision.preprocess.size, dtype=torch.uint8, device=device)
        pictures = batch.picture if batch.picture is not None else no_picture
        outputs = {
            "text": F.normalize(self.embed_texts(batch.text).float(), dim=-1),
            "visual": _mean_by_sample(self.embed_pictures(pictures), batch.picture_of, count),
            "scale": self.logit_scale * 1,
            "bias": self.logit_bias * 1,
        }
        if self.match_scale is not None and self.match_bias is not None:
            outputs |= {"match_scale": self.match_scale * 1, "match_bias": self.match_bias * 1}
        sound = None
        if self.audio is not None:
            sound = batch.sound if batch.sound is not None else torch.zeros(1, self.audio.samples, device=device)
            outputs["audio"] = _mean_by_sample(self.audio(sound), batch.sound_of, count)
        if masked and self.masked is not None:
            outputs |= self.masked(self, self.normalised(pictures), sound, batch)
        return outputs

    def add_matching(self, scale: float) -> None:
        """Give loss `bce` a scale and bias of its own: it compares with two negatives, others with a whole batch."""
        self.match_scale = nn.Parameter(torch.tensor([scale]))
        self.match_bias = nn.Parameter(torch.zeros(1))

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """M,D in the shared space. Args: pictures: uint8 M,3,H,W, or cached features of the tower's body."""
        features = from_cache(pictures) if pictures.is_floating_point() else self.picture_body(pictures)
        return self.vision.head(features)

    def embed_texts(self, texts: Tensor) -> Tensor:
        """B,D in the shared space. Args: texts: int64 B,T, or cached features of the tower's body."""
        return self.text.head(from_cache(texts)) if texts.is_floating_point() else self.text(texts)

    def picture_body(self, pictures: Tensor) -> Tensor:
        """What the image tower's head reads. Args: pictures: uint8 M,3,H,W."""
        return self.vision.body(self.normalised(pictures))

    def text_body(self, captions: list[str]) -> Tensor:
        """What the text tower's head reads."""
        return self.text.body(self.text.without_padding(self.tokenize(captions)).to(self.logit_scale.device))

    def normalised(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 -> float32, with the mean and deviation that the image tower expects."""
        return (pixels_BCHW.float() / 255 - self.pixel_mean) / self.pixel_std


def pictures_only(vision: OpenClipVision | HfVision | HfDualVision, audio: AudioTower | None = None) -> DualEncoder:
    """An encoder without a text tower, as a language model needs it."""
    return DualEncoder(vision, cast(Any, nn.Identity()), _no_text, audio)


def _no_text(_: list[str]) -> Tensor:
    raise TypeError("this encoder has no text tower")


def from_cache(features: Tensor) -> Tensor:
    """Cached features as float32."""
    return features.float()


def _mean_by_sample(features_MD: Tensor, sample_M: Tensor, count: int) -> Tensor:
    """B,D of unit length: the mean feature of each sample. All zero, with a gradient of zero, if M is 0."""
    features_MD = features_MD.float()
    zeros_BD = torch.zeros(count, features_MD.shape[1], device=features_MD.device)
    if not len(sample_M):
        return features_MD.sum() * 0 + zeros_BD
    return F.normalize(zeros_BD.index_add(0, sample_M, F.normalize(features_MD, dim=-1)), dim=-1)


def build_encoder(config: Encoder, audio: Audio) -> DualEncoder:
    """The dual encoder that a configuration names, on the CPU.

    Raises UserError: an unknown model, or weights that cannot be loaded.
    """
    if is_hf_dual(config):
        return _hf_dual_encoder(config, audio)
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


def is_hf_dual(config: Encoder) -> bool:
    """Whether both towers come from one model of transformers: kind `hf`, and nothing is said of a text encoder."""
    return config.kind == "hf" and config.config is None and config.text_model is None and config.text_config is None


def _hf_dual_encoder(config: Encoder, audio: Audio) -> DualEncoder:
    dual = load_dual_encoder(
        config.model, "model.encoder", "; with an image encoder, also model.encoder.text_model or text_config"
    )
    vision, text = dual_towers(dual)
    with torch.no_grad():
        dim = text(dual.tokenize(["a"])).shape[1]
    return DualEncoder(
        vision,
        text,
        dual.tokenize,
        AudioTower(audio, dim) if audio.kind != "none" else None,
        float(dual.model.logit_scale.detach()),
        float(dual.model.logit_bias.detach()) if hasattr(dual.model, "logit_bias") else 0.0,
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
            raise UserError(
                f"model.encoder.config: open_clip builds no model of it: {error!r}. "
                "Remedy: embed_dim, vision_cfg and text_cfg as in open_clip's model configs."
            ) from error
        context = config.config["text_cfg"].get("context_length", 77)
        return clip, open_clip.SimpleTokenizer(context_length=context)
    from mmdata.config import Score
    from mmdata.score.pretrained import check_names

    if config.pretrained is not None or config.model.startswith(("local-dir:", "hf-hub:")):
        check_names(Score(model=config.model, pretrained=config.pretrained))
    elif config.model not in open_clip.list_models():
        raise UserError(
            f"model.encoder.model: open_clip has no model {config.model!r}. Remedy: one of `open_clip.list_models()`."
        )
    forbid_remote_code()
    try:
        clip = open_clip.create_model(
            config.model, config.pretrained, force_custom_text=True, pretrained_text=False, weights_only=True
        )
        return clip, open_clip.get_tokenizer(config.model)
    except (OSError, RuntimeError, ValueError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(f"model.encoder: {config.model} cannot be loaded: {str(error).splitlines()[0]}") from error


def open_clip_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Those settings of an open_clip model config (as in its JSON files) that CustomTextCLIP takes."""
    accepted = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias")
    return {key: value for key, value in config.items() if key in accepted}


def preprocess_settings(config: dict[str, Any]) -> dict[str, Any]:
    """open_clip's preprocess_cfg for a model built from a config: mean and deviation of one half, pictures squashed."""
    size = config["vision_cfg"]["image_size"]
    half = (0.5, 0.5, 0.5)
    settings = {"size": size, "mode": "RGB", "mean": half, "std": half, "interpolation": "bicubic", "fill_color": 255}
    return {**settings, "resize_mode": "squash"}


def _hf_encoder(config: Encoder, audio: Audio) -> DualEncoder:
    from training.data.text_codec import load_tokenizer

    vision = _hf_model(config.model, config.config, "model.encoder")
    text = _hf_model(config.text_model, config.text_config, "model.encoder.text")
    for name in ("image_size", "hidden_size"):
        if not hasattr(vision.config, name):
            raise UserError(f"model.encoder: {type(vision).__name__} has no {name}. Remedy: a ViT, DINOv2 or Swin.")
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
    """The settings of the model's image processor; without one, a mean and deviation of one half."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False) if name is not None else None
    except (OSError, ValueError):
        processor = None
    return Preprocess(size=size, mean=HALF, std=HALF) if processor is None else processor_preprocess(processor, size)


def _hf_model(name: str | None, settings: dict[str, Any] | None, key: str) -> Any:
    from transformers import AutoConfig, AutoModel

    try:
        if settings is not None:
            return AutoModel.from_config(AutoConfig.for_model(**settings))
        if name is None:
            raise UserError(f"{key}: kind `hf` needs a model. Remedy: a hub id or folder, or the model's config.")
        return AutoModel.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(f"{key}: {name or settings} cannot be loaded: {str(error).splitlines()[0]}") from error
