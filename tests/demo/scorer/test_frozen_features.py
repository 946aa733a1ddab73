"""Features of the frozen towers: computed once, and equal to the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmdata.demo.scorer.clip_art import openclipart
from mmdata.demo.scorer.frozen_features import embed_captions, picture_features
from mmdata.errors import DataError
from tests.support.clip_art import write_clip_art


def test_unreadable_picture_is_left_out_and_the_rest_is_measured_once(tmp_path, parts):
    model, preprocess, _ = parts
    write_clip_art(tmp_path, "a/owl.svg", "Owl", "bird")
    write_clip_art(tmp_path, "a/torn.svg", "Torn page", "paper")
    torn = tmp_path / "usr/share/openclipart/svg/a/torn.svg"
    torn.write_text(torn.read_text()[:-30])
    pictures = list(openclipart(tmp_path))
    with pytest.raises(DataError, match=r"torn\.svg: cannot be rendered"):
        next(p for p in pictures if "torn" in p.key).read()
    first = picture_features(model, preprocess, pictures, tmp_path / "cache")
    assert first.keys == ["a/owl.svg"]
    assert first.features.shape == (1, 1280)
    again = picture_features(None, None, pictures, tmp_path / "cache")  # no model to measure with: it must be read
    assert np.array_equal(first.features, again.features)


def test_captions_are_embedded_as_the_text_tower_embeds_them(parts):
    model, _, tokenizer = parts
    texts = ["a cat", "a dog on a long road through a forest", "a cat"]
    embedded = embed_captions(model, tokenizer, texts)
    with torch.inference_mode():
        full = torch.nn.functional.normalize(_pooled(model, tokenizer(texts)), dim=-1).numpy()
    assert np.allclose(embedded, full, atol=1e-5)
    assert embed_captions(model, tokenizer, []).shape == (0, 384)


def _pooled(model, tokens):
    mask = (tokens != 0).long()
    return model.text.pooler(model.text.transformer(input_ids=tokens, attention_mask=mask), mask)
