"""A language model that mixes the samples of a row is refused before it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_run import LLM
from training.model import attention
from training.model.attention import PackedAttention
from training.model.llm import load_llm
from training.model.packing_check import check_samples_apart
from training.model_config import Llm


def language_model(config: dict[str, Any] = LLM) -> Any:
    return load_llm(Llm(kind="config", config=config, tokenizer="bytes"))[0].train()


@pytest.mark.parametrize("setting", ["auto", "eager"])
@pytest.mark.parametrize("window", [None, 4])
def test_a_model_that_keeps_samples_apart_passes(setting: str, window: int | None) -> None:
    llm, state = language_model(), torch.get_rng_state()
    check_samples_apart(llm, PackedAttention(setting, window))
    assert llm.training and torch.equal(torch.get_rng_state(), state)


def test_a_kernel_that_leaks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_mask", lambda positions, *_: torch.ones_like(positions))
    with pytest.raises(
        UserError, match=r"see each other in LlamaForCausalLM with attention sdpa\. Remedy: pack = false"
    ):
        check_samples_apart(language_model(), PackedAttention("auto", 8))


def test_a_model_with_a_recurrent_state_is_refused() -> None:
    """It ignores position ids, whatever attention is set."""
    mamba = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 4}
    with pytest.raises(UserError, match="see each other in MambaForCausalLM"):
        check_samples_apart(language_model(mamba), PackedAttention("auto", None))
