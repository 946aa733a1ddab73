"""The operations for the MFU are those that torch counts, without what a step does not need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny_run import LLM, TEXT, alone, built_stage, first_batch, settings
from training.config import TrainConfig
from training.data.batch_types import PairBatch, RowBatch
from training.data.text_codec import IGNORED
from training.stages.stage_model import StageModel
from training.stages.stage_step import make_step
from training.stages.step_flops import StepFlops

ROWS, LENGTH = 4, 96
LATE = {**settings().model.model_dump(), "fusion": "late"}
CROSS = {**settings().model.model_dump(), "architecture": "cross_attention", "fusion": "hierarchical"}


def full_rows(batch: RowBatch) -> RowBatch:
    """Rows without padding, each of one sample and one picture, half of whose tokens are learned."""
    ids = torch.randint(0, 99, (ROWS, LENGTH))
    places = torch.arange(LENGTH).expand(ROWS, -1).contiguous()
    labels = ids.masked_fill(places < LENGTH // 2, IGNORED)
    assert batch.picture.data is not None
    rows, ones, first = torch.arange(ROWS), torch.ones(ROWS, dtype=torch.long), torch.zeros(ROWS, dtype=torch.long)
    picture = replace(batch.picture, data=batch.picture.data[:ROWS], row=rows, segment=ones, start=first)
    return replace(
        batch, input_ids=ids, labels=labels, position_ids=places, segment=torch.ones_like(ids), picture=picture
    )


def full_captions(batch: PairBatch) -> PairBatch:
    return replace(batch, text=torch.randint(1, 99, batch.text.shape))


def counted(built: StageModel, config: TrainConfig, batch: Any) -> float:
    """What torch counts in a forward and backward pass, with plain attention."""
    torch.backends.mha.set_fastpath_enabled(False)  # which torch does not count
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        make_step(built, built.model, config, alone())(batch)
    torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def hidden_pairs(length: int) -> float:
    """Pairs of tokens that a causal mask hides."""
    return length * (length - 1) / 2


CHUNKS = {"chunked_loss": False}  # which recompute the head
WORK: dict[str, tuple[str, dict[str, Any], int]] = {  # stage, settings, and passes through each layer's attention
    "joint": ("joint", {"joint": CHUNKS}, 3),
    "joint, connector only": ("joint", {"joint": {"freeze_llm": True, **CHUNKS}}, 3),
    "joint, late": ("joint", {"model": LATE, "joint": CHUNKS}, 3),
    "joint, cross-attention": ("joint", {"model": CROSS, "joint": CHUNKS}, 3),
    "instruct, adapters": ("instruct", {"instruct": CHUNKS}, 3),
    "instruct, all": ("instruct", {"instruct": {"method": "full", **CHUNKS}}, 3),
}


@pytest.mark.parametrize("name", WORK)
def test_rows_need_what_torch_counts_without_what_the_mask_hides(name: str, pictures: str, tmp_path: Path) -> None:
    stage, sections, passes = WORK[name]
    config = settings(**sections)
    built = built_stage(stage, config)
    first = first_batch(built, config, pictures, tmp_path)
    assert isinstance(first, RowBatch)
    batch = full_rows(first)
    needed = float(StepFlops(built, config).of(batch))
    hidden = passes * 4 * LLM["hidden_size"] * LLM["num_hidden_layers"] * ROWS * hidden_pairs(LENGTH)  # type: ignore[operator]
    assert needed == pytest.approx(counted(built, config, batch) - hidden, rel=0.01)
    assert all(p.grad is not None for p in built.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("align", [{}, {"freeze_image": True, "freeze_text": True}, {"freeze_image": True}])
def test_pairs_need_what_torch_counts_without_the_products_of_the_loss(
    align: dict[str, Any], pictures: str, tmp_path: Path
) -> None:
    config = settings(align=align)
    built = built_stage("align", config)
    first = first_batch(built, config, pictures, tmp_path)
    assert isinstance(first, PairBatch)
    batch = full_captions(first)
    needed = float(StepFlops(built, config).of(batch))
    assert all(p.grad is None for p in built.model.parameters())
    passes = 1 if align.get("freeze_text") else 3
    hidden = passes * 4 * TEXT["width"] * TEXT["layers"] * len(batch.text) * hidden_pairs(TEXT["context_length"])
    products = 2 * 2 * 3 * 2 * 16 * len(batch.text) ** 2  # kinds, directions, passes; width 16
    assert needed == pytest.approx(counted(built, config, batch) - hidden - products, rel=0.01)


def test_padding_and_what_is_not_learned_need_nothing(pictures: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("joint", config)
    first = first_batch(built, config, pictures, tmp_path)
    assert isinstance(first, RowBatch)
    batch, work = full_rows(first), StepFlops(built, config)
    whole = float(work.of(batch))
    wider = {name: torch.nn.functional.pad(getattr(batch, name), (0, 32)) for name in ("input_ids", "segment")}
    wider["labels"] = torch.nn.functional.pad(batch.labels, (0, 32), value=IGNORED)
    wider["position_ids"] = torch.nn.functional.pad(batch.position_ids, (0, 32))
    assert float(work.of(replace(batch, **wider))) == whole
    fewer = batch.labels.clone()
    fewer[:, : LENGTH // 2 + 8] = IGNORED
    head = 2 * LLM["hidden_size"] * built.llm.config.vocab_size  # type: ignore[operator]
    assert whole - float(work.of(replace(batch, labels=fewer))) == pytest.approx(8 * ROWS * 3 * head)


def test_documents_of_a_row_do_not_attend_to_each_other(pictures: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("joint", config)
    first = first_batch(built, config, pictures, tmp_path)
    assert isinstance(first, RowBatch)
    batch, work = full_rows(first), StepFlops(built, config)
    half = LENGTH // 2
    packed = replace(batch, position_ids=batch.position_ids % half, segment=1 + batch.position_ids // half)
    saved = ROWS * half * half * 3 * 4 * LLM["hidden_size"] * LLM["num_hidden_layers"]  # type: ignore[operator]
    assert float(work.of(batch)) - float(work.of(packed)) == pytest.approx(saved)
    model = {**settings().model.model_dump()}
    model["llm"]["sliding_window"] = half
    windowed = settings(model=model)
    narrow = StepFlops(built_stage("joint", windowed), windowed)
    left = half * (half + 1) / 2 + half * half
    unseen = (LENGTH * (LENGTH + 1) / 2 - left) * ROWS * 3 * 4 * LLM["hidden_size"] * LLM["num_hidden_layers"]  # type: ignore[operator]
    assert float(work.of(batch)) - float(narrow.of(batch)) == pytest.approx(unseen)


def test_a_caption_needs_its_own_tokens(pictures: str, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("align", config)
    first = first_batch(built, config, pictures, tmp_path)
    assert isinstance(first, PairBatch)
    work = StepFlops(built, config)
    long = full_captions(first)
    short = replace(long, text=long.text * (torch.arange(long.text.shape[1]) < 4))
    context = long.text.shape[1]
    attention = 3 * 4 * TEXT["width"] * TEXT["layers"]
    shorter = float(work.of(long)) - float(work.of(short))
    unseen = len(long.text) * attention * (context * (context + 1) - 4 * 5) / 2
    per_token = (shorter - unseen) / (len(long.text) * (context - 4))
    assert per_token == pytest.approx(3 * 2 * 12 * TEXT["width"] ** 2 * TEXT["layers"], rel=0.02), "its weights, twice"
    none = replace(long, weight=torch.zeros_like(long.weight), picture_of=long.picture_of[:0])
    assert float(work.of(none)) == 0.0, "places that no sample fills need nothing"


@pytest.mark.parametrize("instruct", [{"method": "full"}, {"method": "lora"}])
def test_the_kl_term_needs_two_more_passes_over_the_text(
    instruct: dict[str, Any], pictures: str, tmp_path: Path
) -> None:
    plain, compared = (settings(instruct={**instruct, **CHUNKS, "kl_weight": weight}) for weight in (0.0, 0.5))
    built, with_kl = built_stage("instruct", plain), built_stage("instruct", compared)
    first = first_batch(built, plain, pictures, tmp_path)
    assert isinstance(first, RowBatch)
    nothing = first.sound  # the release has no sound; rows of text alone are what the term reads
    batch = replace(full_rows(first), picture=nothing)
    more = float(StepFlops(with_kl, compared).of(batch)) - float(StepFlops(built, plain).of(batch))
    executed = counted(with_kl, compared, batch) - counted(built, plain, batch)
    hidden = (3 + 1) * 4 * LLM["hidden_size"] * LLM["num_hidden_layers"] * ROWS * hidden_pairs(LENGTH)  # type: ignore[operator]
    recomputed_heads = 2 * 2 * LLM["hidden_size"] * built.llm.config.vocab_size * ROWS * LENGTH / 2  # type: ignore[operator]
    assert more == pytest.approx(executed - hidden - recomputed_heads, rel=0.015)


@pytest.mark.parametrize("stage", ["align", "joint"])
def test_cached_features_cost_nothing_again(stage: str, pictures: str, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"align": {"freeze_image": True, "freeze_text": True, "crop_scale": 1.0}}
    config = settings(**sections)
    cached = settings(**sections, data={"cache_features": True})
    built = built_stage(stage, config)
    batch = first_batch(built, config, pictures, tmp_path)
    assert float(StepFlops(built, cached).of(batch)) < float(StepFlops(built, config).of(batch))
