"""A step's gradient is that of the whole batch, whatever it is cut into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdata.errors import DataError
from tests.support.tiny_run import LLM, alone, built_stage, first_batch, release_at, settings
from training.data.text_codec import IGNORED
from training.stages.align import AlignStep, pair_losses
from training.stages.generative import GenerativeStep
from training.stages.stage_model import train_mode
from training.stages.stage_step import make_step


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    return release_at(tmp_path_factory.mktemp("release"))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    assert found
    return found


def same(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == others.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-3, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("loss", ["infonce", "siglip", "triplet"])
@pytest.mark.parametrize("micro", [1, 3, 4])
def test_contrastive_accumulation_equals_the_whole_batch(release: str, tmp_path: Path, loss: str, micro: int) -> None:
    config = settings(align={"loss": loss, "margin": 1.0})
    built = built_stage("align", config)
    batch = first_batch(built, config, release, tmp_path)
    whole = make_step(built, built.model, config, alone())(batch)
    expected = gradients(built.model)
    assert expected["logit_scale"].abs() > 0 or loss == "triplet"
    cut = config.model_copy(update={"align": config.align.model_copy(update={"micro_batch": micro})})
    shares = make_step(built, built.model, cut, alone())(batch)
    same(gradients(built.model), expected)
    torch.testing.assert_close(shares["image"], whole["image"])


def test_contrastive_accumulation_replays_dropout(release: str, tmp_path: Path) -> None:
    """With dropout on, the gradient is that of the same masks with every graph kept."""
    config = settings(align={"micro_batch": 4})
    built = built_stage("align", config)
    batch = first_batch(built, config, release, tmp_path)
    model = Noisy(built.model)
    torch.manual_seed(7)
    AlignStep(model, config.align, alone(), nothing, lambda loss: loss)(batch)
    cached = gradients(model)
    torch.manual_seed(7)
    parts = [model(chunk) for chunk in batch.split(4)]
    found = {name: torch.cat([part[name] for part in parts]) for name in ("text", "visual")}
    found |= {name: parts[0][name] for name in ("scale", "bias")}
    pair_losses(found, batch, config.align, alone())["image"].backward()
    kept = gradients(model)
    same({n: g for n, g in cached.items() if "bias" not in n}, {n: g for n, g in kept.items() if "bias" not in n})
    torch.manual_seed(8)
    AlignStep(model, config.align, alone(), nothing, lambda loss: loss)(batch)
    other = gradients(model)
    assert any(not torch.allclose(other[name], cached[name]) for name in cached)


class Noisy(torch.nn.Module):
    """A dual encoder with dropout on its features."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: Any, masked: bool = False) -> dict[str, torch.Tensor]:
        found = self.inner(batch, masked)
        for name in ("text", "visual"):
            found[name] = torch.nn.functional.normalize(torch.nn.functional.dropout(found[name], 0.3), dim=-1)
        return found


def nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("stage", ["joint", "instruct"])
@pytest.mark.parametrize("micro", [1, 2])
def test_generative_accumulation_equals_the_whole_batch(release: str, tmp_path: Path, stage: str, micro: int) -> None:
    config = settings(**{stage: {"kl_weight": 0.5}})
    built = built_stage(stage, config)
    train_mode(built.model)
    batch = first_batch(built, config, release, tmp_path)
    assert len(batch.input_ids) > 2
    whole = make_step(built, built.model, config, alone())(batch)
    expected = gradients(built.model)
    section = getattr(config, stage).model_copy(update={"micro_batch": micro})
    shares = make_step(built, built.model, config.model_copy(update={stage: section}), alone())(batch)
    same(gradients(built.model), expected)
    assert whole.keys() == shares.keys() == {"text", "kl"}
    for name in whole:
        torch.testing.assert_close(shares[name], whole[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["single_tower", "cross_attention"])
@pytest.mark.parametrize("window", [None, 16])
def test_packed_equals_unpacked(release: str, tmp_path: Path, architecture: str, window: int | None) -> None:
    llm = {"kind": "config", "config": LLM, "tokenizer": "bytes", "sliding_window": window}
    base = settings().model.model_dump()
    config = settings(model={**base, "architecture": architecture, "llm": llm})
    loose = config.model_copy(update={"joint": config.joint.model_copy(update={"pack": False})})
    built = built_stage("joint", config)
    open_gates(built.model)
    train_mode(built.model)
    packed, apart = first_batch(built, config, release, tmp_path), first_batch(built, loose, release, tmp_path)
    assert len(packed.input_ids) < len(apart.input_ids) == 8
    assert sorted(packed.uids) == sorted(apart.uids)
    found = make_step(built, built.model, config, alone())(packed)
    ours = gradients(built.model)
    expected = make_step(built, built.model, loose, alone())(apart)
    same(ours, gradients(built.model))
    torch.testing.assert_close(found["text"], expected["text"], rtol=1e-4, atol=1e-5)


def open_gates(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith(("gate", "gate_mlp")):
            parameter.data.fill_(0.5)


def test_an_all_ones_mask_would_leak_across_documents(release: str, tmp_path: Path) -> None:
    """Why packed rows pass no attention mask: with one of ones, samples see each other."""
    config = settings()
    built = built_stage("joint", config)
    built.model.eval()
    batch = first_batch(built, config, release, tmp_path)
    llm: Any = built.model.llm
    embeds = built.model.embed(batch)
    changed = embeds.clone()
    first = batch.segment[0] == 1
    changed[0, first] += 1.0
    later = batch.segment[0] == 2
    assert later.any()

    def difference(mask: torch.Tensor | None) -> float:
        with torch.no_grad():
            options = {"position_ids": batch.position_ids, "attention_mask": mask, "use_cache": False}
            one, two = (llm.base_model(inputs_embeds=e, **options).last_hidden_state for e in (embeds, changed))
        return float((one - two)[0, later].abs().max())

    assert difference(None) == 0.0
    assert difference(torch.ones_like(batch.input_ids)) > 1e-3


def test_all_labels_masked_raises(release: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("joint", config)
    batch = first_batch(built, config, release, tmp_path)
    batch = replace(batch, labels=torch.full_like(batch.labels, IGNORED))
    step = GenerativeStep(built.model, config.joint, alone(), nothing, lambda loss: loss)
    with pytest.raises(DataError, match="every label is masked"):
        step(batch)


def test_kl_is_zero_at_the_start_and_not_after(release: str, tmp_path: Path) -> None:
    config = settings(instruct={"kl_weight": 1.0}, joint={"kl_weight": 1.0})
    for stage in ("joint", "instruct"):
        built = built_stage(stage, config)
        batch = first_batch(built, config, release, tmp_path)
        shares = make_step(built, built.model, config, alone())(batch)
        assert float(shares["kl"]) == pytest.approx(0, abs=1e-6)
        with torch.no_grad():
            for name, parameter in built.model.llm.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1 if "lora_B" in name or stage == "joint" else 0)
        built.model.zero_grad()
        assert float(make_step(built, built.model, config, alone())(batch)["kl"]) > 1e-4


def test_chunked_loss_equals_the_whole_one(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.model.losses.CHUNK_POSITIONS", 7)
    config = settings()
    built = built_stage("joint", config)
    train_mode(built.model)
    batch = first_batch(built, config, release, tmp_path)
    found = make_step(built, built.model, config, alone())(batch)
    ours = gradients(built.model)
    plain = config.model_copy(update={"joint": config.joint.model_copy(update={"chunked_loss": False})})
    expected = make_step(built, built.model, plain, alone())(batch)
    same(ours, gradients(built.model))
    torch.testing.assert_close(found["text"], expected["text"])
