"""Every fusion of media and text trains, and no sample sees the media of another."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdata.errors import UserError
from mmdata.workspace.layout import Workspace
from tests.support.gradients import gradients, open_gates, same
from tests.support.tiny_run import alone, built_stage, first_batch, settings
from tests.support.tiny_towers import SMALL, SWIN
from training.config import Parallel
from training.data.batch_readers import RowReader, Share
from training.data.batch_types import PlacedMedia, RowBatch
from training.data.examples import Example, Pairs
from training.data.media_tensors import Media, MediaSpec
from training.data.order import Order
from training.data.row_layout import EncodedRow, Layout, lay_out
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader
from training.data.text_codec import IGNORED, Encoded
from training.distributed.parallelism import parallelise
from training.model.multimodal_lm import MultimodalLm
from training.stages.generative import with_stand_ins
from training.stages.stage_model import StageModel, build_model, freeze_and_adapt, train_mode
from training.stages.stage_step import make_step

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
        hidden_RLD = model.hidden(model.llm, model.embed(batch), batch)
    model._context.clear()
    return hidden_RLD


@pytest.mark.parametrize(("architecture", "fusion"), PAIRS)
def test_every_fusion_trains(architecture: str, fusion: str, mixed: Workspace, tmp_path: Path) -> None:
    built = build(architecture, fusion)
    model = model_of(built)
    open_gates(model)
    batch = rows(built, mixed, tmp_path)
    sums = model(batch)
    assert sums["loss"].isfinite()
    sums["loss"].backward()
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
    for variant in (built, other):
        model_of(variant)(batch)["loss"].backward()
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
            of_sample = torch.zeros_like(batch.segment, dtype=torch.bool)
            of_sample[row] = batch.segment[row] == segment
            assert (before[of_sample] - after[of_sample]).abs().max() > 1e-5, kind
            assert torch.equal(before[~of_sample], after[~of_sample]), kind


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
    sums = model(with_stand_ins(bare, model))
    torch.testing.assert_close(sums["loss"], model._loss(expected, batch, True))
    sums["loss"].backward()
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
    maps, features = model.vision.maps(pixels), model._maps(pixels)
    grid = maps[-1].shape[-2] * maps[-1].shape[-1]
    assert [entry_MNC.shape[1] for entry_MNC in features] == [grid] * 3
    torch.testing.assert_close(features[0], maps[-1].flatten(2).transpose(1, 2))
    if vision == "swin":
        assert len({entry_MNC.shape[2] for entry_MNC in features}) > 1
        expected = torch.nn.functional.adaptive_avg_pool2d(maps[0], maps[-1].shape[-2:])
        torch.testing.assert_close(features[1], expected.flatten(2).transpose(1, 2))
    model(rows(built, mixed, tmp_path))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.connector.projectors.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_embedding_of_a_picture_may_be_all_that_is_read_of_it(
    architecture: str, mixed: Workspace, tmp_path: Path
) -> None:
    built = build(architecture, "early", picture_features="embedding")
    model = model_of(built)
    open_gates(model)
    pixels = torch.randint(0, 256, (2, 3, *model.vision.preprocess.size), dtype=torch.uint8)
    (features,) = model.picture_features(pixels)
    vectors = model.vision((pixels.float() / 255 - model.pixel_mean) / model.pixel_std)
    torch.testing.assert_close(features, vectors[:, None])
    from_body = model.frozen_features(pixels)
    torch.testing.assert_close(model.picture_features(from_body)[0], features)
    assert model.picture_tokens == (1 if architecture == "single_tower" else 0)
    model(rows(built, mixed, tmp_path))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.connector.projectors.parameters())


def test_kl_is_zero_at_the_start_and_not_after(numbered: str, tmp_path: Path) -> None:
    config = settings(instruct={"kl_weight": 1.0}, joint={"kl_weight": 1.0})
    for stage in ("joint", "instruct"):
        built = built_stage(stage, config)
        batch = first_batch(built, config, numbered, tmp_path)
        shares = make_step(built, built.model, config, alone())(batch)
        assert float(shares["kl"]) == pytest.approx(0, abs=1e-6)
        with torch.no_grad():
            for name, parameter in built.model.llm.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1 if "lora_B" in name or stage == "joint" else 0)
        built.model.zero_grad()
        assert float(make_step(built, built.model, config, alone())(batch)["kl"]) > 1e-4


def test_chunked_loss_equals_the_whole_one(numbered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.model.losses.CHUNK_POSITIONS", 7)
    config = settings()
    built = built_stage("joint", config)
    train_mode(built.model)
    batch = first_batch(built, config, numbered, tmp_path)
    losses = make_step(built, built.model, config, alone())(batch)
    ours = gradients(built.model)
    plain = config.model_copy(update={"joint": config.joint.model_copy(update={"chunked_loss": False})})
    expected = make_step(built, built.model, plain, alone())(batch)
    same(ours, gradients(built.model))
    torch.testing.assert_close(losses["text"], expected["text"])


def test_the_picture_layer_is_the_one_that_is_read_and_a_deeper_one_than_there_are_is_refused() -> None:
    built = build("single_tower", "early", picture_layer=-2)
    model = model_of(built)
    pixels = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    maps = model.vision.maps((pixels.float() / 255 - model.pixel_mean) / model.pixel_std)
    (features,) = model.picture_features(pixels)
    torch.testing.assert_close(features, maps[-2].flatten(2).transpose(1, 2))
    with pytest.raises(UserError, match=r"model\.picture_layer -3: .* has 2 feature maps\. Remedy: .* from -2 to -1"):
        build("single_tower", "early", picture_layer=-3)


def prompts(built: StageModel, *texts: list[int]) -> RowBatch:
    """Rows of one sample each, without media, as generation begins with."""
    layout = Layout(0, 0, len(texts[0]), len(texts[0]), packed=False, template=False)
    example = Example("", [], Media(None, None))
    rows = [EncodedRow([example], [Encoded(ids, [IGNORED] * len(ids))], 0, 0) for ids in texts]
    return lay_out(rows, len(rows), len(texts[0]), layout, 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_generation_stays_in_the_window_and_ends_at_any_end(attention: str) -> None:
    llm = {**settings().model.llm.model_dump(), "sliding_window": 4, "attention": attention}
    built = build("single_tower", "early", llm=llm)
    model = model_of(built).eval()
    texts = [[5, 90, 17, 40, 8, 61, 33], [200, 4, 4, 150, 3, 77, 9]]
    expected = [list(text) for text in texts]
    for _ in range(6):  # without a cache: training's own computation on the whole row
        last_RD = hidden(built, prompts(built, *expected))[:, -1]
        for row, token in enumerate(model.llm.get_output_embeddings()(last_RD).argmax(-1).tolist()):
            expected[row].append(token)
    answers = [row[7:] for row in expected]
    assert model.generate(prompts(built, *texts), 6, ends=()) == answers
    ends = {answers[0][2], answers[1][4]}
    cut = [answer[: min(at for at, token in enumerate(answer) if token in ends)] for answer in answers]
    assert model.generate(prompts(built, *texts), 6, ends) == cut


def test_a_window_over_a_models_own_windows_is_refused() -> None:
    llm = settings().model.llm.model_dump()
    mistral = {**llm, "config": {**llm["config"], "model_type": "mistral", "sliding_window": 8}}
    build("single_tower", "early", llm=mistral)
    with pytest.raises(UserError, match=r"windows of their own\. Remedy: leave sliding_window out"):
        build("single_tower", "early", llm={**mistral, "sliding_window": 4})


@pytest.mark.parametrize(("architecture", "fusion"), [("single_tower", "hierarchical"), ("cross_attention", "early")])
def test_media_leave_the_residual_stream_bf16_under_autocast(
    architecture: str, fusion: str, mixed: Workspace, tmp_path: Path
) -> None:
    built = build(architecture, fusion)
    model = model_of(built)
    open_gates(model)
    given: list[torch.dtype] = []
    for block in built.blocks:
        layer = getattr(block, "layer", block)
        layer.register_forward_pre_hook(lambda _layer, inputs: given.append(inputs[0].dtype))
    batch = rows(built, mixed, tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert given == [torch.bfloat16] * len(built.blocks)
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
