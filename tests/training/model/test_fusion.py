"""Fusion: every way of letting media into the text trains, and no sample sees another's."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdata.errors import UserError
from mmdata.workspace.layout import Workspace
from tests.support.tiny_run import alone, settings
from tests.training.model.test_encoders import SMALL, SWIN
from training.config import Parallel
from training.data.batch_readers import RowReader, Share
from training.data.batch_types import PlacedMedia, RowBatch
from training.data.examples import Pairs
from training.data.media_tensors import MediaSpec
from training.data.order import Order
from training.data.row_layout import Layout
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader
from training.distributed.parallelism import parallelise
from training.model.fusion import (
    Attention,
    Entry,
    FusedLayer,
    GatedCrossAttention,
    MediaContext,
    Projector,
    Resampler,
    decoder_list,
    fusion_plan,
)
from training.model.multimodal_lm import MultimodalLm
from training.stages.generative import with_stand_ins
from training.stages.stage_model import StageModel, build_model, freeze_and_adapt, train_mode

ARCHITECTURES = ("single_tower", "cross_attention")
FUSIONS = ("early", "late", "hierarchical", "attention")
PAIRS = [(architecture, fusion) for architecture in ARCHITECTURES for fusion in FUSIONS]
WINDOWED = [("single_tower", "late", 24), ("cross_attention", "early", 24)]


def build(architecture: str, fusion: str, **model: Any) -> StageModel:
    audio = {"kind": "logmel_vit", "config": SMALL, "mel_bins": 16, "seconds": 0.5}
    base = {**settings().model.model_dump(), "audio": audio, "queries": 3}
    config = settings(model={**base, "architecture": architecture, "fusion": fusion, **model})
    built = build_model("joint", config)
    freeze_and_adapt(built, config)
    train_mode(built.model)
    return built


def open_gates(model: torch.nn.Module) -> None:
    """Let the media speak: gates begin closed."""
    for name, parameter in model.named_parameters():
        if name.endswith((".gate", ".gate_mlp")):
            parameter.data.fill_(0.5)


def model_of(built: StageModel) -> MultimodalLm:
    assert isinstance(built.model, MultimodalLm)
    return built.model


def rows(built: StageModel, mixed: Workspace, cache: Path) -> RowBatch:
    """A batch of packed rows with pictures, clips, sounds: nine samples of all kinds."""
    model = model_of(built)
    assert built.codec is not None
    assert model.audio is not None
    release = open_training_release(str(mixed.root), cache)
    spec = MediaSpec(model.vision.preprocess, 3, model.audio.samples)
    source = Pairs(release.samples("train"), SampleReader(release), spec)
    layout = Layout(model.picture_tokens, model.sound_tokens, 192, 100, True, False)
    batch = RowReader(source, Order(len(source), 3, 4, 3), 14, Share(), built.codec, layout)[0]
    assert batch.picture.data is not None
    assert batch.sound.data is not None
    assert int(batch.segment.max()) > 1
    return batch


def hidden(built: StageModel, batch: RowBatch) -> torch.Tensor:
    model = model_of(built)
    with torch.no_grad():
        found = model.hidden(model.llm, model.embed(batch), batch)
    model._context.clear()
    return found


@pytest.mark.parametrize(("architecture", "fusion"), PAIRS)
def test_every_fusion_trains(architecture: str, fusion: str, mixed: Workspace, tmp_path: Path) -> None:
    built = build(architecture, fusion)
    model = model_of(built)
    open_gates(model)
    batch = rows(built, mixed, tmp_path)
    found = model(batch)
    assert found["loss"].isfinite()
    found["loss"].backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("vision.", "audio.")):
            assert parameter.grad is None, name
        elif parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    for connector in (model.connector, model.hearing):
        assert connector is not None
        for name, parameter in connector.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-9, name
    assert not model._context.added
    assert not model._context.seen


@pytest.mark.parametrize(("architecture", "fusion"), PAIRS)
def test_recomputed_activations_give_the_same_gradient(
    architecture: str, fusion: str, mixed: Workspace, tmp_path: Path
) -> None:
    """Blocks run again in the backward pass, when the forward pass has let go of its media."""
    built = build(architecture, fusion)
    open_gates(built.model)
    batch = rows(built, mixed, tmp_path)
    other = copy.deepcopy(built)
    parallelise(other.model, other.llm, other.blocks, Parallel(activation_checkpointing=True), alone())
    for one in (built, other):
        model_of(one)(batch)["loss"].backward()
    theirs = dict(other.model.named_parameters())
    for name, parameter in built.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(theirs[name].grad, parameter.grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("architecture", "fusion", "window"), [*((*pair, None) for pair in PAIRS), *WINDOWED])
def test_a_sample_sees_its_own_media_only(
    architecture: str, fusion: str, window: int | None, mixed: Workspace, tmp_path: Path
) -> None:
    """Another picture (or sound) in one sample of a row changes that sample and nothing else, anywhere."""
    llm = {**settings().model.llm.model_dump(), "sliding_window": window}
    built = build(architecture, fusion, llm=llm)
    built.model.eval()
    open_gates(built.model)
    batch = rows(built, mixed, tmp_path)
    before = hidden(built, batch)
    for kind in ("picture", "sound"):
        shared = [at for at, row in enumerate(batch.media[kind].row.tolist()) if int(batch.segment[row].max()) > 1]
        assert shared
        for at in shared[:4]:
            media = batch.media[kind].data.clone()
            media[at] = (255 - media[at]) if kind == "picture" else media[at].flip(0) * 0.3 + 0.1
            after = hidden(built, replace(batch, **{kind: replace(batch.media[kind], data=media)}))
            row, segment = int(batch.media[kind].row[at]), int(batch.media[kind].segment[at])
            own = torch.zeros_like(batch.segment, dtype=torch.bool)
            own[row] = batch.segment[row] == segment
            assert (before[own] - after[own]).abs().max() > 1e-5, kind
            assert torch.equal(before[~own], after[~own]), kind


@pytest.mark.parametrize("fusion", FUSIONS)
def test_closed_gates_leave_the_language_model_as_it_was(fusion: str, mixed: Workspace, tmp_path: Path) -> None:
    built = build("cross_attention", fusion)
    model = model_of(built)
    batch = rows(built, mixed, tmp_path)
    model.eval()
    before = hidden(built, batch)
    words = model.llm.get_input_embeddings()(batch.input_ids)
    torch.testing.assert_close(before, model.hidden(model.llm, words, batch))
    model(batch)["loss"].backward()
    gates = {name: p.grad for name, p in model.named_parameters() if name.endswith(".gate")}
    assert len(gates) == len(model.plan)
    assert all(grad is not None and grad.abs() > 0 for grad in gates.values()), "but they learn to open"


@pytest.mark.parametrize(("architecture", "fusion"), PAIRS)
def test_rows_without_media_run_the_connector_for_nothing(
    architecture: str, fusion: str, mixed: Workspace, tmp_path: Path
) -> None:
    built = build(architecture, fusion)
    model = model_of(built)
    open_gates(model)
    batch = rows(built, mixed, tmp_path)
    none = torch.empty(0, dtype=torch.long)
    bare = replace(batch, picture=PlacedMedia(None, none, none, none), sound=PlacedMedia(None, none, none, none))
    words = model.llm.get_input_embeddings()(batch.input_ids)
    expected = model.hidden(model.llm, words, batch)
    found = model(with_stand_ins(bare, model))
    torch.testing.assert_close(found["loss"], model._loss(expected, batch.labels, True))
    found["loss"].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name}: DDP waits for its gradient"
        if name.startswith(("connector.", "hearing.")):
            assert parameter.grad is not None
            assert not parameter.grad.any(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("vision", ["vit", "swin"])
def test_maps_of_several_depths_are_pooled_to_one_grid(
    architecture: str, vision: str, mixed: Workspace, tmp_path: Path
) -> None:
    """A Swin's early maps are wider and finer; each entry of the plan has a projector of its width."""
    encoder = settings().model.encoder.model_dump()
    if vision == "swin":
        bert = {"model_type": "bert", **SMALL, "vocab_size": 300}
        four = {**SWIN, "image_size": 64, "depths": [1, 1, 1], "num_heads": [2, 2, 2], "window_size": 2}
        encoder = {"kind": "hf", "config": four, "text_config": bert, "embed_dim": 16}
    built = build(architecture, "hierarchical", encoder=encoder)
    model = model_of(built)
    open_gates(model)
    assert [entry.layer for entry in model.plan] == [0, 1, 2]
    pixels = torch.randn(2, 3, *model.vision.preprocess.size)
    maps, features = model.vision.maps(pixels), model._features(pixels)
    grid = maps[-1].shape[-2] * maps[-1].shape[-1]
    assert [one.shape[1] for one in features] == [grid] * 3
    torch.testing.assert_close(features[0], maps[-1].flatten(2).transpose(1, 2))
    if vision == "swin":
        assert len({one.shape[2] for one in features}) > 1
        expected = torch.nn.functional.adaptive_avg_pool2d(maps[0], maps[-1].shape[-2:])
        torch.testing.assert_close(features[1], expected.flatten(2).transpose(1, 2))
    model(rows(built, mixed, tmp_path))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.connector.projectors.parameters())


def test_the_plan_names_layers_that_there_are() -> None:
    for architecture, fusion in PAIRS:
        for layers in range(1, 41):
            plan = fusion_plan(architecture, fusion, layers)
            named = [entry.layer for entry in plan]
            assert named == sorted(set(named))
            assert 0 <= named[0] <= named[-1] < layers
            assert all(0 < entry.depth <= 1 for entry in plan)
    assert fusion_plan("single_tower", "early", 24) == [Entry(0, 1.0)]
    assert fusion_plan("single_tower", "late", 24) == [Entry(18, 1.0)]
    assert fusion_plan("cross_attention", "hierarchical", 24) == [Entry(0, 1.0), Entry(6, 1 / 3), Entry(12, 2 / 3)]
    assert [entry.layer for entry in fusion_plan("cross_attention", "attention", 10)] == [0, 4, 8]


def test_the_resampler_gives_so_many_tokens_whatever_comes_in() -> None:
    torch.manual_seed(0)
    resampler = Resampler(16, 5, 4)
    tokens = torch.randn(2, 9, 16)
    found = resampler(tokens)
    assert found.shape == resampler(tokens[:, :3]).shape == (2, 5, 16)
    torch.testing.assert_close(resampler(tokens[:, torch.randperm(9)]), found)
    torch.testing.assert_close(resampler(tokens[:1])[0], found[0])
    assert Projector(7, 12, 16)(torch.randn(2, 9, 7)).shape == (2, 9, 16)


def test_a_query_that_may_look_nowhere_gets_nothing() -> None:
    torch.manual_seed(0)
    cross = GatedCrossAttention(16, 4)
    cross.gate.data.fill_(1.0)
    cross.gate_mlp.data.fill_(1.0)
    text, media = torch.randn(1, 3, 16), torch.randn(1, 4, 16)
    mask = torch.tensor([[[True, True, False, False], [False] * 4, [False, False, True, True]]])
    found = cross(text, media, mask)
    assert found.isfinite().all()
    assert torch.equal(found[0, 1], text[0, 1])
    media[0, 2:] += 1.0
    other = cross(text, media, mask)
    assert torch.equal(found[0, :2], other[0, :2])
    assert not torch.allclose(found[0, 2], other[0, 2])
    attention = Attention(16, 4)
    whole = attention(text, media)
    torch.testing.assert_close(attention(text[:, :1], media), whole[:, :1])


def test_a_fused_layer_is_its_layer_to_who_asks() -> None:
    inner = torch.nn.Linear(4, 4)
    inner.attention_type = "full_attention"  # type: ignore[assignment]
    context = MediaContext()
    fused = FusedLayer(inner, 2, context, None)
    assert fused.attention_type == "full_attention"
    with pytest.raises(AttributeError):
        _ = fused.nothing
    hidden_states = torch.randn(1, 3, 4)
    assert torch.equal(fused(hidden_states), inner(hidden_states))
    context.added[2] = torch.ones(1, 3, 4)
    assert torch.equal(fused(hidden_states), inner(hidden_states + 1))
    context.clear()
    assert torch.equal(fused(hidden_states), inner(hidden_states))
    assert torch.equal(copy.deepcopy(fused)(hidden_states), inner(hidden_states))


def test_the_decoder_is_the_longest_list_of_layers() -> None:
    built = build("single_tower", "late")
    assert len(decoder_list(built.llm)) == 4
    assert [type(layer).__name__ for layer in decoder_list(built.llm)][3] == "FusedLayer"
    with pytest.raises(UserError, match="Linear keeps its layers in no list"):
        decoder_list(torch.nn.Linear(2, 2))
