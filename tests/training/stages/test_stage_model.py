"""Each stage trains what its settings say and freezes the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.tiny_run import built_stage, settings
from training.config import StageName
from training.model.encoders import DualEncoder
from training.stages.stage_model import (
    SIGLIP_BIAS,
    SIGLIP_SCALE,
    build_model,
    generative_settings,
    keep_reference,
    train_mode,
)


def test_the_same_seed_builds_the_same_weights_and_another_does_not() -> None:
    states = [build_model("joint", settings(seed=seed)).model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["connector.projectors.0.up.weight"], states[2]["connector.projectors.0.up.weight"])


def test_frozen_towers_train_their_projections_and_siglip_begins_as_published() -> None:
    built = build_model("align", settings(align={"loss": "siglip", "freeze_image": True, "freeze_text": True}))
    assert isinstance(built.model, DualEncoder)
    assert float(built.model.logit_scale) == pytest.approx(SIGLIP_SCALE)
    assert float(built.model.logit_bias) == SIGLIP_BIAS
    trained = {name for name, parameter in built.model.named_parameters() if parameter.requires_grad}
    assert {"vision.visual.proj", "logit_scale", "logit_bias"} <= trained
    assert not any("transformer" in name for name in trained)
    assert len(built.blocks) > 1


@pytest.mark.parametrize(("freeze", "llm_trained"), [(True, False), (False, True)])
def test_stage_joint_trains_the_connector_and_perhaps_the_llm(freeze: bool, llm_trained: bool) -> None:
    built = built_stage("joint", settings(joint={"freeze_llm": freeze}))
    assert not any(parameter.requires_grad for parameter in built.model.vision.parameters())
    assert any(parameter.requires_grad for parameter in built.llm.parameters()) == llm_trained
    assert all(parameter.requires_grad for parameter in built.model.connector.parameters())  # type: ignore[union-attr]


def test_gates_train_inside_a_frozen_llm() -> None:
    model = {**settings().model.model_dump(), "architecture": "cross_attention"}
    for stage, sections in (("joint", {"joint": {"freeze_llm": True}}), ("instruct", {})):
        built = built_stage(stage, settings(model=model, **sections))
        trained = {name for name, parameter in built.llm.named_parameters() if parameter.requires_grad}
        assert any(name.endswith(".gate") for name in trained), stage
        assert all(".cross." in name or "lora_" in name for name in trained), stage


def test_frozen_towers_stay_in_evaluation_mode() -> None:
    built = built_stage("joint", settings())
    train_mode(built.model)
    assert built.llm.training and not built.model.vision.training
    assert generative_settings("joint", settings()).pack_length == 192


def test_the_kl_reference_is_on_the_device_in_the_compute_type_and_not_saved() -> None:
    config = settings(joint={"kl_weight": 0.1})
    built = build_model("joint", config)
    keep_reference(built, config, torch.device("meta"), torch.bfloat16)
    reference = built.model.reference  # type: ignore[union-attr]
    assert {(p.device.type, p.dtype, p.requires_grad) for p in reference.parameters()} == {  # type: ignore[union-attr]
        ("meta", torch.bfloat16, False)
    }
    angles = [(b.device.type, b.dtype) for name, b in reference.named_buffers() if "inv_freq" in name]  # type: ignore[union-attr]
    assert angles and set(angles) == {("meta", torch.float32)}
    assert not any(name.startswith("reference") for name in built.model.state_dict())
    assert all(p.device.type == "cpu" for p in built.model.parameters())


@pytest.mark.parametrize(
    ("stage", "sections"),
    [("joint", {}), ("instruct", {"instruct": {"kl_weight": 0.1}}), ("align", {"joint": {"kl_weight": 0.1}})],
)
def test_there_is_no_reference_without_a_kl_term_or_with_adapters(stage: StageName, sections: dict[str, Any]) -> None:
    built = built_stage(stage, settings(**sections))
    assert getattr(built.model, "reference", None) is None
