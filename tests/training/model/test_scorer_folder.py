"""Aligned towers become a folder that open_clip opens, with the same embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_towers import hf, open_clip
from training.model.encoders import build_encoder
from training.model.scorer_folder import save_scorer
from training.model_config import Audio


def test_open_clip_opens_the_folder_and_embeds_the_same(tmp_path: Path) -> None:
    import open_clip as library

    config = open_clip("vit")
    encoder = build_encoder(config, Audio()).eval()
    encoder.logit_scale.data.fill_(1.5)
    save_scorer(encoder, config, tmp_path / "scorer")
    assert sorted(path.name for path in (tmp_path / "scorer").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "open_clip_model.safetensors.sha256",
    ]
    clip = library.create_model(f"local-dir:{tmp_path / 'scorer'}").eval()
    pixels, tokens = torch.randn(2, 3, *encoder.vision.preprocess.size), encoder.tokenize(["a cat", "a dog"])
    torch.testing.assert_close(clip.encode_image(pixels), encoder.vision(pixels))
    torch.testing.assert_close(clip.encode_text(tokens), encoder.text(tokens))
    assert float(clip.logit_scale) == 1.5


def test_hugging_face_towers_are_refused(tmp_path: Path) -> None:
    config = hf("vit")
    with pytest.raises(UserError, match=r"no CLIP or SigLIP together cannot be a scorer.* Remedy: "):
        save_scorer(build_encoder(config, Audio()), config, tmp_path)
