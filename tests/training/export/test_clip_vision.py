"""An open_clip ViT and the CLIPVisionModel that is made of it have the same feature maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.tiny_run import TEXT, VISION
from tests.support.tiny_towers import open_clip
from training.export.clip_vision import clip_vision_model
from training.model.encoders import build_encoder
from training.model.towers import OpenClipVision
from training.model_config import Audio, Encoder


def tower(quick_gelu: bool = False, **vision: Any) -> OpenClipVision:
    config = {"embed_dim": 16, "vision_cfg": {**VISION, **vision}, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    built = build_encoder(Encoder(kind="open_clip", config=config), Audio()).eval().vision
    assert isinstance(built, OpenClipVision)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_feature_maps_are_the_same(quick_gelu: bool, pool: str) -> None:
    vision = tower(quick_gelu, pool_type=pool)
    model = clip_vision_model(vision)
    assert model is not None
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True).hidden_states[1:]
        maps = vision.maps(pixels)
    assert len(maps) == len(hidden) == 2
    for map_BChw, hidden_BNC in zip(maps, hidden, strict=True):
        torch.testing.assert_close(hidden_BNC[:, 1:], map_BChw.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["resnet", "timm"])
def test_other_towers_are_not_vits(kind: str) -> None:
    vision = build_encoder(open_clip(kind), Audio()).vision
    assert isinstance(vision, OpenClipVision)
    assert clip_vision_model(vision) is None


@pytest.mark.parametrize("vision", [{"ls_init_value": 0.1}, {"no_ln_pre": True}, {"image_size": [32, 48]}])
def test_vits_that_clip_has_not_are_left(vision: dict[str, Any]) -> None:
    assert clip_vision_model(tower(**vision)) is None
