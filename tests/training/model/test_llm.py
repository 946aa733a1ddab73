"""Language models load from a config, LoRA goes into their blocks and folds back, and a GGUF file must be there."""

from __future__ import annotations

import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_run import LLM
from training.config import Lora
from training.model.llm import add_lora, gguf_file, linear_names, load_llm, merge_lora
from training.model_config import Llm


def test_adapters_begin_as_nothing_and_fold_into_the_weights() -> None:
    llm, codec = load_llm(Llm(kind="config", config=LLM, tokenizer="bytes"))
    assert llm.config.vocab_size == len(codec.tokenizer)
    ids = torch.tensor([[5, 6, 7]])
    before, names = llm(input_ids=ids).logits, set(llm.state_dict())
    assert "lm_head" not in linear_names(llm) and "q_proj" in linear_names(llm)
    add_lora(llm, Lora(r=2))
    torch.testing.assert_close(llm(input_ids=ids).logits, before)
    trained = {name for name, parameter in llm.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    adapted = llm(input_ids=ids).logits
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge_lora(llm)
    assert set(llm.state_dict()) == names
    torch.testing.assert_close(llm(input_ids=ids).logits, adapted, rtol=1e-3, atol=1e-4)


def test_targets_that_name_no_layer_are_the_users_mistake() -> None:
    llm, _ = load_llm(Llm(kind="config", config=LLM, tokenizer="bytes"))
    with pytest.raises(UserError, match=r"instruct\.lora\.targets: .* Remedy: "):
        add_lora(llm, Lora(targets=["no_such_layer"]))


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"no file /none\.gguf\. Remedy: "):
        gguf_file("/none.gguf")
    with pytest.raises(UserError, match=r"model\.llm: /none cannot be loaded"):
        load_llm(Llm(kind="hf", model="/none"))
