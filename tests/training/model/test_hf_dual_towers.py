"""A CLIP, SigLIP or SigLIP2 folder is the start of stage `align`: the same features, logits, and a way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.hf_dual_encoder import MODEL_TYPES
from mmdata.score.scorer import load_scorer
from tests.support.hf_folders import TEXTS, save_dual
from tests.support.tiny_run import settings
from tests.support.trained import checkpoint_of, pixels
from training.export.export import export
from training.model.encoders import DualEncoder, build_encoder
from training.model.scorer_folder import save_scorer
from training.model_config import Audio, Encoder
from training.stages.stage_model import build_model, load_model


def encoder_at(folder: Path) -> DualEncoder:
    return build_encoder(Encoder(kind="hf", model=str(folder)), Audio()).eval()


def own_logits(encoder: DualEncoder, shown: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize
    with torch.no_grad():
        images, texts = unit(encoder.embed_pictures(shown)), unit(encoder.embed_texts(encoder.tokenize(TEXTS)))
    return encoder.logit_scale.exp() * images @ texts.T + encoder.logit_bias


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_logits_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    from mmdata.score.hf_dual_encoder import picture_inputs

    model, encoder = save_dual(kind, tmp_path), encoder_at(tmp_path)
    shown = pixels(0, 2)
    inputs = picture_inputs(model.config.vision_config, encoder.normalised(shown))
    with torch.no_grad():
        expected = model(input_ids=encoder.tokenize(TEXTS), **inputs)
        hidden = model.vision_model(**inputs, output_hidden_states=True).hidden_states[1:]
    torch.testing.assert_close(own_logits(encoder, shown), expected.logits_per_image, atol=1e-5, rtol=1e-5)
    assert (expected.logits_per_image[0] - expected.logits_per_image[1]).abs().max() > 1e-3
    with torch.no_grad():
        maps = encoder.vision.maps(encoder.normalised(shown))
    for map_BChw, hidden_BNC in zip(maps, hidden, strict=True):
        torch.testing.assert_close(map_BChw.flatten(2).transpose(1, 2), hidden_BNC[:, -16:])


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_a_body_and_its_head_are_the_tower_and_every_weight_learns(kind: str, tmp_path: Path) -> None:
    save_dual(kind, tmp_path)
    encoder = encoder_at(tmp_path)
    for tower, inputs in ((encoder.vision, encoder.normalised(pixels(0))), (encoder.text, encoder.tokenize(TEXTS))):
        tower(inputs).square().sum().backward()
        assert not [name for name, parameter in tower.named_parameters() if parameter.grad is None]
        tower.freeze_body()
        trained = [name for name, parameter in tower.named_parameters() if parameter.requires_grad]
        assert trained and all(tower.is_of_head(name) for name in trained)
        torch.testing.assert_close(tower.head(tower.body(inputs).detach()), tower(inputs))


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_trained_towers_go_back_to_transformers_and_to_the_scorer(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    save_dual(kind, tmp_path / "base")
    config = settings(model={"encoder": {"kind": "hf", "model": str(tmp_path / "base")}})
    built = build_model("align", config)
    encoder: Any = built.model
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.01)
        if kind == "clip":
            encoder.logit_bias.zero_()  # CLIP has none
    encoder.eval()
    save_scorer(encoder, config.model.encoder, tmp_path / "align" / "scorer")
    again = encoder_at(tmp_path / "align" / "scorer")
    torch.testing.assert_close(own_logits(again, pixels(0)), own_logits(encoder, pixels(0)))
    reopened: Any = AutoModel.from_pretrained(tmp_path / "align" / "scorer")
    assert reopened.logit_scale.item() == pytest.approx(2.51)
    scorer = load_scorer(Score(model=str(tmp_path / "align"), device="cpu"))
    with torch.no_grad():
        features = torch.nn.functional.normalize(encoder.embed_texts(encoder.tokenize(TEXTS))).numpy()
    np.testing.assert_allclose(scorer.embed_texts(TEXTS), features, atol=1e-6)


def test_a_siglip_keeps_its_own_scale_and_bias(tmp_path: Path) -> None:
    save_dual("siglip", tmp_path / "siglip")
    save_dual("clip", tmp_path / "clip")
    for kind, scale, bias in (("siglip", 2.5, -7.5), ("clip", 2.3026, -10.0)):
        encoder = {"kind": "hf", "model": str(tmp_path / kind)}
        model: Any = build_model("align", settings(model={"encoder": encoder}, align={"loss": "siglip"})).model
        assert (float(model.logit_scale), float(model.logit_bias)) == pytest.approx((scale, bias))


def test_an_export_of_stage_align_opens_in_transformers(tmp_path: Path, numbered: str) -> None:
    from transformers import AutoModel, AutoProcessor

    save_dual("clip", tmp_path / "base")
    config = settings(model={"encoder": {"kind": "hf", "model": str(tmp_path / "base")}})
    place = checkpoint_of(tmp_path, "align", config, numbered)
    table = export(place, tmp_path / "out", release=numbered)
    assert [row["name"] for row in table["rows"]] == ["checkpoint", "transformers"]
    assert table["rows"][1]["embedding_difference"] < 1e-6
    trained: Any = load_model(place)[0].model
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    inputs = AutoProcessor.from_pretrained(tmp_path / "out")(text=TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = model.get_text_features(**inputs).pooler_output
        torch.testing.assert_close(theirs, trained.text(trained.tokenize(TEXTS)), atol=1e-5, rtol=1e-5)


def test_a_folder_that_is_no_dual_encoder_names_what_is(tmp_path: Path) -> None:
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"model\.encoder: .* type `vit`; .* clip, siglip, siglip2.* model\.encoder\.text"
    ):
        encoder_at(tmp_path)
