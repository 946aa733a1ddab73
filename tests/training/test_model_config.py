"""Settings of the model: what may stand together, and how small it may be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from training.config import TrainConfig
from training.model_config import Audio


def test_the_shortest_sound_that_is_allowed_can_be_built() -> None:
    from training.model.towers import AudioTower

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    conv = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    for kind, config in (("logmel_vit", small), ("wav2vec2", {**small, **conv})):
        import torch

        tower = AudioTower(Audio(kind=kind, seconds=0.2, mel_bins=16, config=config), 4)
        assert tower(torch.randn(2, tower.samples)).shape == (2, 4)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"llava": "x", "fusion": "late"}, "llava: a LLaVA model has another fusion"),
        ({"llava": "x", "audio": {"kind": "logmel_vit"}}, r"another audio\.kind\. Leave it at its default"),
        ({"picture_layer": -2, "picture_features": "embedding"}, "picture_layer is of feature maps"),
        ({"picture_layer": 0}, "picture_layer"),
    ],
)
def test_model_settings_that_contradict_each_other_are_refused(model: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TrainConfig.model_validate({"model": model})
    assert TrainConfig.model_validate({"model": {"llava": "x"}}).model.llava == "x"
