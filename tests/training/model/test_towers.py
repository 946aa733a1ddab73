"""Towers of every kind map into one space and give feature maps at every depth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.errors import UserError
from tests.support.made_release import flac, tone
from tests.support.tiny_towers import TOWERS, WAVES, hf, sound
from training.data.media_tensors import SAMPLE_RATE, decode_sound
from training.model.encoders import build_encoder
from training.model.towers import AudioTower
from training.model_config import Audio


@pytest.mark.parametrize("name", TOWERS)
def test_towers_give_maps_at_every_depth(name: str) -> None:
    encoder = build_encoder(TOWERS[name], Audio()).eval()
    size = encoder.vision.preprocess.size
    pixels = torch.randn(2, 3, *size)
    embedded, maps = encoder.vision(pixels), encoder.vision.maps(pixels)
    assert embedded.shape == (2, 16)
    assert encoder.text(encoder.tokenize(["a cat", "猫"])).shape == (2, 16)
    assert len(maps) >= 2
    assert all(feature_map.ndim == 4 and feature_map.shape[0] == 2 for feature_map in maps)
    for feature_map in maps:
        assert feature_map.shape[2] * size[1] == feature_map.shape[3] * size[0], "a map has the picture's proportions"
        assert feature_map.isfinite().all()
    changed = pixels.clone()
    changed[:, :, : size[0] // 2] += 1.0
    moved = [
        (feature_map - map_before).abs().mean((1, 3))
        for feature_map, map_before in zip(encoder.vision.maps(changed), maps, strict=True)
    ]
    above, below = moved[0][:, 0], moved[0][:, -1]
    assert (above > below).all() or maps[0].shape[2] == 1, "its rows are the picture's rows"


def test_maps_are_the_patches_without_class_and_register_tokens() -> None:
    for name, grid in {"vit": (4, 4), "wide vit": (2, 6), "registers": (2, 2), "dinov2": (4, 4)}.items():
        encoder = build_encoder(hf(name), Audio()).eval()
        pixels = torch.randn(1, 3, *encoder.vision.preprocess.size)
        maps = encoder.vision.maps(pixels)
        assert len(maps) == 3
        model: Any = encoder.vision.model
        last = model(pixels).last_hidden_state[0, -grid[0] * grid[1] :]
        assert torch.equal(maps[-1][0].flatten(1).T, last)
        assert maps[0].shape[2:] == grid


@pytest.mark.parametrize("name", TOWERS)
def test_a_frozen_tower_still_trains_its_projection(name: str) -> None:
    encoder = build_encoder(TOWERS[name], Audio())
    for tower in (encoder.vision, encoder.text):
        tower.freeze_body()
        trained = sum(p.numel() for p in tower.parameters() if p.requires_grad)
        assert 0 < trained < sum(p.numel() for p in tower.parameters())


def test_padding_of_a_caption_does_not_count() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(hf("vit"), Audio()).eval()
    short, long = encoder.tokenize(["a cat"])[:, :10], encoder.tokenize(["a cat"])
    assert long.shape == (1, 24)
    torch.testing.assert_close(encoder.text(short), encoder.text(long))
    assert not torch.allclose(encoder.text(encoder.tokenize(["a cap"])), encoder.text(long))
    assert encoder.text(encoder.tokenize([""])).isfinite().all()
    assert encoder.tokenize(["x" * 99]).shape == (1, 24)


@pytest.mark.parametrize("name", WAVES)
def test_sound_becomes_finite_embeddings(name: str) -> None:
    torch.manual_seed(0)
    tower = AudioTower(sound(**WAVES[name]), 16).eval()
    assert tower.samples == SAMPLE_RATE
    waves = torch.stack(
        [decode_sound(flac(tone(hertz, 1.0, 44_100, 2), 44_100), tower.samples) for hertz in (300, 2000)]
        + [torch.zeros(tower.samples), torch.full((tower.samples,), 1.0), torch.randn(tower.samples)]
    )
    tokens, embedded = tower.tokens(waves), tower(waves)
    assert tokens.ndim == 3
    assert tokens.shape[2] == tower.width == 32
    assert tokens.shape[1] > 5
    assert embedded.shape == (5, 16)
    assert embedded.isfinite().all()
    assert not torch.allclose(embedded[0], embedded[1], atol=1e-3)


def test_a_tone_is_loud_in_its_mel_band_while_it_lasts() -> None:
    tower = AudioTower(sound(**WAVES["logmel_vit"]), 16)
    wave = np.concatenate([tone(3000, 0.5), np.zeros((1, SAMPLE_RATE // 2), np.float32)], 1)
    mel = tower.log_mel(torch.from_numpy(wave))
    assert mel.shape == (1, 1, 32, tower.frames)
    centre = 2595 * math.log10(1 + 3000 / 700) / (2595 * math.log10(1 + 8000 / 700)) * 33 - 1
    assert abs(int(mel[0, 0, :, :40].mean(1).argmax()) - centre) < 3
    assert mel[0, 0, :, :40].max() - mel[0, 0, :, 60:].max() > 1
    assert mel[0, 0, :, 60:].max() == pytest.approx((-10 + 4) / 4)


@pytest.mark.parametrize("pretrained", [False, True])
def test_wav2vec2_draws_nothing_that_a_step_does_not_seed(pretrained: bool, tmp_path: Path) -> None:
    """Its own masks come from numpy: cached accumulation would replay others, and a resumed run draw others."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    masks = {"mask_time_prob": 0.5, "mask_time_length": 2, "mask_feature_prob": 0.5, "mask_feature_length": 2}
    settings = {**WAVES["wav2vec2"]["config"], **masks, "layerdrop": 0.9}
    Wav2Vec2Model(Wav2Vec2Config(**settings)).save_pretrained(tmp_path)
    config = sound(kind="wav2vec2", model=str(tmp_path)) if pretrained else sound(kind="wav2vec2", config=settings)
    tower = AudioTower(config, 16).train()
    wave = torch.randn(2, SAMPLE_RATE)
    embeddings = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(0)
        embeddings.append(tower(wave))
    assert torch.equal(*embeddings)
    embeddings[0].sum().backward()
    assert all(p.grad is not None for p in tower.parameters())


def test_sound_weights_that_are_not_there_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.audio: .* cannot be loaded"):
        AudioTower(sound(kind="wav2vec2", model=str(tmp_path / "none")), 16)
