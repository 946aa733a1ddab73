"""Packed samples do not see each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.gradients import gradients, open_gates, same
from tests.support.tiny_run import LLM, alone, built_stage, first_batch, settings
from training.data.batch_types import PlacedMedia, RowBatch
from training.model.packed_rows import text_only, with_other_pictures
from training.stages.stage_model import train_mode
from training.stages.stage_step import make_step


@pytest.mark.parametrize("architecture", ["single_tower", "cross_attention"])
@pytest.mark.parametrize("window", [None, 16])
def test_packed_equals_unpacked(numbered: str, tmp_path: Path, architecture: str, window: int | None) -> None:
    llm = {"kind": "config", "config": LLM, "tokenizer": "bytes", "sliding_window": window}
    base = settings().model.model_dump()
    config = settings(model={**base, "architecture": architecture, "llm": llm})
    loose = config.model_copy(update={"joint": config.joint.model_copy(update={"pack": False})})
    built = built_stage("joint", config)
    open_gates(built.model)
    train_mode(built.model)
    packed, apart = first_batch(built, config, numbered, tmp_path), first_batch(built, loose, numbered, tmp_path)
    assert len(packed.input_ids) < len(apart.input_ids) == 8
    assert sorted(packed.uids) == sorted(apart.uids)
    losses = make_step(built, built.model, config, alone())(packed)
    ours = gradients(built.model)
    expected = make_step(built, built.model, loose, alone())(apart)
    same(ours, gradients(built.model))
    torch.testing.assert_close(losses["text"], expected["text"], rtol=1e-4, atol=1e-5)


def test_an_all_ones_mask_would_leak_across_documents(numbered: str, tmp_path: Path) -> None:
    """Why packed rows pass no attention mask: with one of ones, samples see each other."""
    config = settings()
    built = built_stage("joint", config)
    built.model.eval()
    batch = first_batch(built, config, numbered, tmp_path)
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
            before, after = (llm.base_model(inputs_embeds=e, **options).last_hidden_state for e in (embeds, changed))
        return float((before - after)[0, later].abs().max())

    assert difference(None) == 0.0
    assert difference(torch.ones_like(batch.input_ids)) > 1e-3


def test_other_pictures_are_those_of_other_samples_and_change_the_loss(numbered: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("joint", config)
    batch = first_batch(built, config, numbered, tmp_path)
    assert isinstance(batch, RowBatch)
    swapped = with_other_pictures(batch)
    assert swapped is not None and batch.picture.data is not None and swapped.picture.data is not None
    assert sorted(map(hash_of, swapped.picture.data)) == sorted(map(hash_of, batch.picture.data))
    assert all(hash_of(one) != hash_of(two) for one, two in zip(batch.picture.data, swapped.picture.data, strict=True))
    with torch.no_grad():
        assert float(built.model(batch)["loss"]) != float(built.model(swapped)["loss"])


@pytest.mark.parametrize(
    ("samples", "swappable"), [([1, 1, 2, 3, 3, 3], True), ([1, 1], False), ([1, 2], True), ([1, 1, 1, 2], False)]
)
def test_samples_of_several_pictures_get_none_of_their_own(samples: list[int], swappable: bool) -> None:
    segment = torch.tensor(samples)
    count = len(samples)
    data = segment.to(torch.uint8).view(count, 1, 1, 1).expand(count, 3, 2, 2)
    zeros = torch.zeros(1, 4, dtype=torch.long)
    pictures = PlacedMedia(data, torch.zeros(count, dtype=torch.long), segment, torch.arange(count))
    nothing = PlacedMedia(None, segment[:0], segment[:0], segment[:0])
    batch = RowBatch(zeros, zeros, zeros, zeros + max(samples), pictures, nothing, [], 1, 0, 0)
    swapped = with_other_pictures(batch)
    assert (swapped is not None) == swappable
    if swapped is not None and swapped.picture.data is not None:
        assert not bool((swapped.picture.data[:, 0, 0, 0].long() == segment).any())


def hash_of(picture: torch.Tensor) -> bytes:
    return picture.numpy().tobytes()


@pytest.mark.parametrize("pack", [True, False])
def test_no_more_documents_begin_than_a_batch_says(numbered: str, tmp_path: Path, pack: bool) -> None:
    """Flash attention is told their bounds in a tensor of so many, so that nobody waits for a GPU to count them."""
    config = settings(joint={"pack": pack})
    built = built_stage("joint", config)
    batch = first_batch(built, config, numbered, tmp_path)
    model: Any = built.model
    for rows in (batch, text_only(batch, model.picture_tokens, model.sound_tokens), *batch.split(1)):
        assert 0 < int((rows.position_ids == 0).sum()) <= rows.most_documents
