"""A generative step's gradient is that of the whole batch, whatever it is cut into."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmdata.errors import DataError
from tests.support.gradients import gradients, same
from tests.support.tiny_run import alone, built_stage, first_batch, settings
from training.data.text_codec import IGNORED
from training.stages.generative import GenerativeStep
from training.stages.stage_model import train_mode
from training.stages.stage_step import make_step


@pytest.mark.parametrize("stage", ["joint", "instruct"])
@pytest.mark.parametrize("micro", [1, 2])
def test_generative_accumulation_equals_the_whole_batch(numbered: str, tmp_path: Path, stage: str, micro: int) -> None:
    config = settings(**{stage: {"kl_weight": 0.5}})
    built = built_stage(stage, config)
    train_mode(built.model)
    batch = first_batch(built, config, numbered, tmp_path)
    assert len(batch.input_ids) > 2
    whole = make_step(built, built.model, config, alone())(batch)
    expected = gradients(built.model)
    section = getattr(config, stage).model_copy(update={"micro_batch": micro})
    shares = make_step(built, built.model, config.model_copy(update={stage: section}), alone())(batch)
    same(gradients(built.model), expected)
    assert whole.keys() == shares.keys() == {"text", "kl"}
    for name in whole:
        torch.testing.assert_close(shares[name], whole[name], rtol=1e-4, atol=1e-6)


def test_all_labels_masked_raises(numbered: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("joint", config)
    batch = first_batch(built, config, numbered, tmp_path)
    batch = replace(batch, labels=torch.full_like(batch.labels, IGNORED))
    step = GenerativeStep(built.model, config.joint, alone(), nullcontext, lambda loss: loss)
    with pytest.raises(DataError, match="every label is masked"):
        step(batch)
