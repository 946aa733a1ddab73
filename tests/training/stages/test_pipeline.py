"""A model that a pipeline cannot cut is refused by its settings; tied embeddings are seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_run import LLM, settings
from training.config import TrainConfig
from training.distributed.process_mesh import Mesh
from training.model.llm import is_tied
from training.model.multimodal_lm import MultimodalLm
from training.stages.pipeline import RemoteLayer, cut_pipeline
from training.stages.stage_model import build_model


class OfTwo(Mesh):
    """The second rank of a pipeline of so many."""

    def size(self, name: str) -> int:
        return 2 if name == "pp" else 1

    def rank(self, name: str) -> int:
        return 1 if name == "pp" else 0


def model_of(**model: Any) -> MultimodalLm:
    config: TrainConfig = settings(model={**settings().model.model_dump(), **model})
    built = build_model("joint", config)
    assert isinstance(built.model, MultimodalLm)
    return built.model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"fusion": "late"}, "needs media at the first layer"),
        ({"architecture": "cross_attention"}, "needs media at the first layer"),
        (
            {"llm": {"kind": "config", "config": {**LLM, "num_hidden_layers": 1}, "tokenizer": "bytes"}},
            "over the LLM's 1",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(model: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"{says}.* Remedy: "):
        cut_pipeline(model_of(**model), OfTwo(torch.device("cpu"), {}))


def test_the_last_rank_keeps_the_last_layers_the_norm_and_the_head_under_their_names() -> None:
    model = model_of()
    names = set(model.state_dict())
    assert not is_tied(model.llm)
    cut_pipeline(model, OfTwo(torch.device("cpu"), {}))
    left = set(model.state_dict())
    assert left < names
    assert {name.split(".")[3] for name in left if ".layers." in name} == {"2", "3"}
    assert isinstance(model.vision, RemoteLayer) and isinstance(model.llm.get_input_embeddings(), RemoteLayer)
    assert "llm.lm_head.weight" in left


def test_tied_embeddings_are_seen() -> None:
    llm = {"kind": "config", "config": {**LLM, "tie_word_embeddings": True}, "tokenizer": "bytes"}
    model = model_of(llm=llm)
    assert is_tied(model.llm)
    cut_pipeline(model, OfTwo(torch.device("cpu"), {}))
    assert model.llm.get_input_embeddings().weight.counted_elsewhere
