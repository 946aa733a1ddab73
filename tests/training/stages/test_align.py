"""A contrastive step's gradient is that of the whole batch, whatever it is cut into."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.gradients import gradients, same
from tests.support.tiny_run import alone, built_stage, first_batch, settings
from training.stages.align import AlignStep, pair_losses
from training.stages.stage_step import make_step

ALL_LOSSES = {"infonce": 1.0, "siglip": 0.1, "triplet": 0.5, "bce": 0.25}


@pytest.mark.parametrize("loss", ["infonce", "siglip", "triplet", "bce", ALL_LOSSES])
@pytest.mark.parametrize("micro", [1, 3, 4])
def test_contrastive_accumulation_equals_the_whole_batch(numbered: str, tmp_path: Path, loss: Any, micro: int) -> None:
    config = settings(align={"loss": loss, "margin": 1.0})
    built = built_stage("align", config)
    batch = first_batch(built, config, numbered, tmp_path)
    whole = make_step(built, built.model, config, alone())(batch)
    expected = gradients(built.model)
    assert expected["logit_scale"].abs() > 0 or loss in ("triplet", "bce")
    assert ("match_scale" in expected) == ("bce" in loss)
    cut = config.model_copy(update={"align": config.align.model_copy(update={"micro_batch": micro})})
    shares = make_step(built, built.model, cut, alone())(batch)
    same(gradients(built.model), expected)
    assert shares.keys() == whole.keys()
    for name, share in shares.items():
        torch.testing.assert_close(share, whole[name])


def test_several_losses_are_the_weighted_sum_of_each_alone(numbered: str, tmp_path: Path) -> None:
    def gradient(loss: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        config = settings(align={"loss": loss, "weights": {"image": 2.0}})
        built = built_stage("align", config)
        built.model.logit_scale.data.fill_(1.0)
        built.model.logit_bias.data.fill_(-1.0)
        shares = make_step(built, built.model, config, alone())(first_batch(built, config, numbered, tmp_path))
        return shares, gradients(built.model)

    together, whole = gradient(ALL_LOSSES)
    assert set(together) == {f"image/{name}" for name in ALL_LOSSES}
    expected: dict[str, torch.Tensor] = {}
    for name, weight in ALL_LOSSES.items():
        shares, part = gradient(name)
        torch.testing.assert_close(together[f"image/{name}"], shares["image"])
        expected |= {key: expected.get(key, 0) + weight * value for key, value in part.items()}
    same(whole, expected)


def test_contrastive_accumulation_replays_dropout(numbered: str, tmp_path: Path) -> None:
    """With dropout on, the gradient is that of the same masks with every graph kept."""
    config = settings(align={"micro_batch": 4})
    built = built_stage("align", config)
    batch = first_batch(built, config, numbered, tmp_path)
    model = Noisy(built.model)
    torch.manual_seed(7)
    AlignStep(model, config.align, alone(), nullcontext, lambda loss: loss)(batch)
    cached = gradients(model)
    torch.manual_seed(7)
    parts = [model(chunk) for chunk in batch.split(4)]
    outputs = {name: torch.cat([part[name] for part in parts]) for name in ("text", "visual")}
    outputs |= {name: parts[0][name] for name in ("scale", "bias")}
    pair_losses(outputs, batch, config.align, alone())["image"].backward()
    kept = gradients(model)
    same({n: g for n, g in cached.items() if "bias" not in n}, {n: g for n, g in kept.items() if "bias" not in n})
    torch.manual_seed(8)
    AlignStep(model, config.align, alone(), nullcontext, lambda loss: loss)(batch)
    other = gradients(model)
    assert any(not torch.allclose(other[name], cached[name]) for name in cached)


class Noisy(torch.nn.Module):
    """A dual encoder with dropout on its features."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: Any, masked: bool = False) -> dict[str, torch.Tensor]:
        outputs = self.inner(batch, masked)
        for name in ("text", "visual"):
            outputs[name] = torch.nn.functional.normalize(torch.nn.functional.dropout(outputs[name], 0.3), dim=-1)
        return outputs
