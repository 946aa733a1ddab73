"""The language model inside a vision-language folder is a language model of its own, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmdata.errors import UserError
from tests.support.hf_folders import LLAVA_TEMPLATE, TEXTS, save_vision_language
from training.data.text_codec import MEDIA_PLACEHOLDER, Turn
from training.model.llm import load_llm
from training.model.vision_language import VISION_LANGUAGE_TYPES
from training.model_config import Llm


@pytest.mark.parametrize(
    ("kind", "tied"), [*((kind, False) for kind in VISION_LANGUAGE_TYPES), ("smolvlm", True), ("qwen2_vl", True)]
)
def test_its_logits_are_those_of_the_whole_model_on_text(kind: str, tied: bool, tmp_path: Path) -> None:
    model = save_vision_language(kind, tmp_path, tied)
    llm, codec = load_llm(Llm(model=str(tmp_path)))
    ids = codec.tokenizer(TEXTS[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(llm(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert (expected[0, 0] - expected[0, -1]).abs().max() > 1e-2
    same = llm.get_output_embeddings().weight is llm.get_input_embeddings().weight
    assert same == tied
    assert not any("vision" in name or "projector" in name for name in llm.state_dict())


@pytest.mark.parametrize("apart", [False, True])
def test_a_template_of_parts_keeps_the_text(apart: bool, tmp_path: Path) -> None:
    """Older folders keep the processor's template in chat_template.json."""
    save_vision_language("smolvlm", tmp_path)
    if apart:
        (tmp_path / "chat_template.jinja").unlink()
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA_TEMPLATE}))
    _, codec = load_llm(Llm(model=str(tmp_path)))
    turns = [Turn("user", f"{MEDIA_PLACEHOLDER}\nWhat is this?"), Turn("assistant", "A cat.")]
    encoded = codec.conversation(turns)
    text = codec.tokenizer.decode(encoded.ids)
    assert text == "USER: \nWhat is this? ASSISTANT: A cat. </s>"
    assert codec.tokenizer.decode(encoded.ids[: encoded.media_at[0]]) == "USER: "
    assert codec.tokenizer.decode([label for label in encoded.labels if label >= 0]) == " A cat. </s>"


def test_another_architecture_is_named_beside_those_that_load(tmp_path: Path) -> None:
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.llm: .*ViTConfig.* Remedy: .*smolvlm.*qwen2_5_vl"):
        load_llm(Llm(model=str(tmp_path)))
