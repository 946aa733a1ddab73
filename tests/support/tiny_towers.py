"""Configurations of the smallest towers of every kind."""

from __future__ import annotations

from typing import Any

from tests.support.tiny_run import TEXT, VISION
from training.model_config import Audio, Encoder

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}


BERT = {"model_type": "bert", **SMALL, "vocab_size": 300, "max_position_embeddings": 40}


PATCHES = {"image_size": 32, "patch_size": 8}


SWIN = {"model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 2]}


HF = {
    "vit": {"model_type": "vit", **SMALL, **PATCHES},
    "wide vit": {"model_type": "vit", **SMALL, "image_size": [16, 48], "patch_size": 8},
    "swin": {**SWIN, "window_size": 4},
    "dinov2": {"model_type": "dinov2", **SMALL, **PATCHES},
    "registers": {"model_type": "dinov2_with_registers", **SMALL, "image_size": 32, "patch_size": 16},
    "siglip": {"model_type": "siglip_vision_model", **SMALL, **PATCHES},
}


OPEN_CLIP = {
    "vit": VISION,
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "timm": {"image_size": 64, "timm_model_name": "mobilenetv2_035", "timm_proj": "linear"},
}


WAVES = {
    "logmel_vit": {"kind": "logmel_vit", "config": SMALL, "mel_bins": 32},
    "wav2vec2": {
        "kind": "wav2vec2",
        "config": {**SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2},
    },
}


def hf(name: str, **more: Any) -> Encoder:
    return Encoder(kind="hf", config=HF[name], text_config=BERT, embed_dim=16, context_length=24, **more)


def open_clip(name: str) -> Encoder:
    return Encoder(kind="open_clip", config={"embed_dim": 16, "vision_cfg": OPEN_CLIP[name], "text_cfg": TEXT})


def sound(**more: Any) -> Audio:
    return Audio(seconds=1.0, **more)


TOWERS = {**{f"hf {name}": hf(name) for name in HF}, **{f"open_clip {name}": open_clip(name) for name in OPEN_CLIP}}
