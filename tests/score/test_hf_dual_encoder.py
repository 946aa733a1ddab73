"""CLIP, SigLIP and SigLIP2 folders of transformers score as transformers' own models do, and others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.hf_dual_encoder import MODEL_TYPES, load_dual_encoder, picture_inputs
from mmdata.score.preprocess import fit_picture
from mmdata.score.scorer import load_scorer
from tests.support.hf_folders import TEXTS, save_dual


def picture(height: int = 32, width: int = 32) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 255, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def by_transformers(model: Any, folder: Path, shown: np.ndarray) -> Any:
    """The outputs of transformers' own processor and model, as its documentation runs them."""
    from transformers import AutoImageProcessor, AutoTokenizer

    pixels = AutoImageProcessor.from_pretrained(folder)(images=[Image.fromarray(shown)], return_tensors="pt")
    padded = {"padding": "max_length", "max_length": 16, "truncation": True, "return_tensors": "pt"}
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, **padded)["input_ids"]
    with torch.no_grad():
        return model(input_ids=tokens, **pixels)


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_the_scorer_embeds_as_transformers_does(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    expected = by_transformers(save_dual(kind, folder), folder, picture())
    scorer = load_scorer(Score(model=str(folder), device="cpu"))
    assert scorer.name == f"local-dir:{kind}"
    np.testing.assert_allclose(scorer.embed_images(picture()[None]), expected.image_embeds, atol=1e-6)
    np.testing.assert_allclose(scorer.embed_texts(TEXTS), expected.text_embeds, atol=1e-6)


@pytest.mark.parametrize(("kind", "atol"), [("clip", 3.0), ("siglip", 1.5)])
def test_pictures_are_prepared_as_the_folders_processor_does(kind: str, atol: float, tmp_path: Path) -> None:
    """Within a grey level and, where a side is cropped by an odd number of pixels, half a pixel."""
    from transformers import AutoImageProcessor

    save_dual(kind, tmp_path)
    preprocess = load_dual_encoder(str(tmp_path), "score.model").preprocess
    shown = picture(64, 80)
    out = np.empty((32, 32, 3), np.uint8)
    fit_picture(shown, (64, 80), preprocess, out)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(images=[Image.fromarray(shown)], return_tensors="pt")["pixel_values"][0].permute(1, 2, 0)
    theirs = (pixels.numpy() * np.array(preprocess.std) + np.array(preprocess.mean)) * 255
    assert np.abs(theirs - out).max() < atol


def test_patches_of_siglip2_are_its_processors(tmp_path: Path) -> None:
    from transformers import Siglip2ImageProcessor

    shown = picture()
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    expected = processor(images=[Image.fromarray(shown)], return_tensors="pt")
    model = save_dual("siglip2", tmp_path)
    normalised = (torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    inputs = picture_inputs(model.config.vision_config, normalised)
    torch.testing.assert_close(inputs["pixel_values"], expected["pixel_values"], atol=1e-6, rtol=0)
    assert inputs["spatial_shapes"].tolist() == expected["spatial_shapes"].tolist()


def test_another_kind_of_model_is_named(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"score\.model: .* of type `bert`; .* clip, siglip, siglip2\. Remedy: "):
        load_scorer(Score(model=str(tmp_path), device="cpu"))
    (tmp_path / "config.json").write_text('{"model_type": "clop"}')
    with pytest.raises(UserError, match=r"clop.* Remedy: a folder or hub id of CLIP, SigLIP or SigLIP2"):
        load_dual_encoder(str(tmp_path), "model.encoder")


def test_sizes_that_do_not_agree_are_refused_and_the_remedy_works(tmp_path: Path) -> None:
    save_dual("clip", tmp_path)
    path = tmp_path / "processor_config.json"
    described = json.loads(path.read_text())
    right = described["image_processor"]["size"]
    described["image_processor"]["size"] = {"shortest_edge": 40}
    path.write_text(json.dumps(described))
    with pytest.raises(
        UserError, match=r"resizes, crops or pads pictures to .*40.* takes 32 pixels\. Remedy: write 32"
    ):
        load_dual_encoder(str(tmp_path), "score.model")
    described["image_processor"]["size"] = right
    path.write_text(json.dumps(described))
    assert load_dual_encoder(str(tmp_path), "score.model").preprocess.size == (32, 32)


def test_changed_weights_are_named(tmp_path: Path) -> None:
    from mmdata.storage.digests import write_digests

    save_dual("clip", tmp_path)
    weights = tmp_path / "model.safetensors"
    write_digests([weights])
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"model\.safetensors: its bytes have changed.* Remedy: "):
        load_scorer(Score(model=str(tmp_path), device="cpu"))
