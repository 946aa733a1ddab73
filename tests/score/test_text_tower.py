"""A text tower that is cut to the needed positions gives the embeddings of the whole one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from mmdata.config import Score
from mmdata.score.preprocess import Preprocess
from mmdata.score.pretrained import LoadedModel, load_model
from mmdata.score.scorer import ClipScorer
from mmdata.score.text_tower import trim_text_tower
from tests.support.scoring import TINY, encode, open_clip_embeddings, photo

CAPTIONS = ["a cat", "", "two dogs beside a red house on a hill " * 3, "一只猫坐在草地上", "x\x00y\nz", "word " * 500]


def test_a_cut_text_tower_gives_the_same_embeddings(scorer: ClipScorer, tiny_folder: Path) -> None:
    _, wanted = open_clip_embeddings(tiny_folder, [encode(photo(1))], CAPTIONS)
    np.testing.assert_allclose(scorer.embed_texts(CAPTIONS), wanted, atol=2e-6)
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny_folder}")(CAPTIONS)
    assert scorer._needed_lengths(tokens).tolist()[:2] == [4, 2]  # start, words, end: the rest of 77 is not computed


@pytest.mark.parametrize(
    "change",
    [
        {"text_cfg": {"no_causal_mask": True}},
        {"text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
        {"text_cfg": {"pool_type": "eos", "eos_id": 49407}},
        {"text_cfg": {"proj_type": "none"}, "embed_dim": 64},
        {"text_cfg": {"proj_bias": True}},
        {"custom_text": True},
        {"custom_text": True, "text_cfg": {"embed_cls": True, "pad_id": 0}},
    ],
    ids=str,
)
def test_towers_of_every_kind_score_as_they_do_whole(change: dict) -> None:
    config = {**TINY, **change, "text_cfg": {**TINY["text_cfg"], **change.get("text_cfg", {})}}
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    model = kind(**config).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tokens = tokenizer(CAPTIONS)
    encode_text, width = trim_text_tower(model)
    with torch.no_grad():
        for row, length in zip(tokens, width(tokens).tolist(), strict=True):
            torch.testing.assert_close(encode_text(row[None, :length]), model.encode_text(row[None]), atol=1e-5, rtol=0)
    preprocess = Preprocess(size=(64, 64))
    embedded = ClipScorer(LoadedModel("x", model, preprocess, tokenizer)).embed_texts(CAPTIONS)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).numpy()
    np.testing.assert_allclose(embedded, wanted, atol=2e-6)


def test_a_text_tower_that_cannot_be_cut_is_run_whole(tiny: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmdata.score import text_tower

    monkeypatch.setattr(
        text_tower,
        "_trim_causal_tower",
        lambda tower, pool, eos: (lambda t: torch.ones(len(t), 32), lambda t: t[:, 0] * 0 + 3),
    )
    loaded = load_model(tiny)
    scorer = ClipScorer(loaded)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(loaded.model.encode_text(loaded.tokenizer(CAPTIONS)), dim=-1)
    np.testing.assert_allclose(scorer.embed_texts(CAPTIONS), wanted.numpy(), atol=2e-6)
