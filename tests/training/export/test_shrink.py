"""Smaller models are what their names promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from mmdata.errors import UserError
from tests.support.tiny_run import LLM, alone, built_stage, release_at
from tests.support.trained import FUSIONS, checkpoint_of, config_of, hidden, pixels
from training.checkpoint.checkpoints import Progress
from training.checkpoint.saver import save
from training.data.batch_readers import Share
from training.data.sample_index import open_training_release
from training.data.text_codec import Turn
from training.export import comparison, shrink
from training.export.export import export
from training.export.exported import load_exported
from training.model.fusion import decoder_list
from training.stages.stage_model import load_model
from training.stages.stage_reader import make_reader
from training.stages.stage_step import validate


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    return release_at(tmp_path_factory.mktemp("release"))


def test_int8_weights_lie_in_safetensors_and_say_nearly_the_same(tmp_path: Path) -> None:
    wide = {**LLM, "hidden_size": 64, "intermediate_size": 256}
    place = checkpoint_of(tmp_path, "instruct", config_of("cross_attention", llm=wide))
    rows = {row["name"]: row for row in export(place, tmp_path / "out", int8=True)["rows"]}
    whole, small = (load_file(tmp_path / "out" / name / "model.safetensors") for name in (".", "int8"))
    quantised = [name.removesuffix("_weight_qdata") for name in small if name.endswith("_weight_qdata")]
    assert len(quantised) == 4 * 7
    for name in quantised:
        assert small[f"{name}_weight_qdata"].dtype == torch.int8
        scale = small[f"{name}_weight_scale"]
        error = small[f"{name}_weight_qdata"].float() * scale - whole[f"{name}weight"]
        assert (error.abs() <= scale * 0.501).all(), name
    size = {name: (tmp_path / "out" / name / "model.safetensors").stat().st_size for name in (".", "int8")}
    assert size["int8"] < 0.5 * size["."]
    assert rows["int8"]["bytes"] < rows["merged"]["bytes"]
    assert 1e-4 < rows["int8"]["logit_difference"] < 0.5
    assert rows["int8"]["same_next_token"] > 0.9
    assert rows["merged"]["logit_difference"] < 1e-5
    before, after = load_model(place)[0], load_exported(tmp_path / "out" / "int8")
    shown = pixels(0)
    assert torch.cosine_similarity(hidden(before, shown), hidden(after, shown), dim=0) > 0.99
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "int8")


def test_pruning_takes_the_weakest_neurons_out_of_the_matrices(tmp_path: Path) -> None:
    """Neurons that say nothing can go without a trace."""
    config = config_of("cross_attention", "attention", llm={**LLM, "mlp_bias": True})
    built = built_stage("joint", config)
    torch.manual_seed(0)
    dead = [torch.randperm(64)[:32] for _ in range(4)]
    layers: list[Any] = list(decoder_list(built.llm))
    for layer, silent in zip(layers, dead, strict=True):
        layer.mlp.down_proj.weight.data[:, silent] = 0
        layer.mlp.up_proj.bias.data.normal_()
    progress = Progress("joint", 7, 56, "none", "none", config.model_dump(mode="json"))
    place = save(tmp_path / "joint" / "checkpoints", built.model, None, progress, 1)
    rows = {row["name"]: row for row in export(place, tmp_path / "out", prune=0.5)["rows"]}
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "pruned")
    assert pruned.config.intermediate_size == 32
    assert pruned.model.layers[0].mlp.down_proj.weight.shape == (32, 32)
    assert rows["pruned"]["logit_difference"] < 1e-5
    assert rows["pruned"]["bytes"] < rows["merged"]["bytes"]
    assert rows["pruned"]["llm_parameters"] == rows["merged"]["llm_parameters"] - 4 * (3 * 32 * 32 + 2 * 32)
    shown = pixels(0)
    after = load_exported(tmp_path / "out" / "pruned")
    torch.testing.assert_close(hidden(after, shown), hidden(load_model(place)[0], shown), atol=1e-5, rtol=0)


def test_pruning_refuses_what_it_cannot_do_soundly(tmp_path: Path) -> None:
    described = AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=2, vocab_size=99, n_positions=64)
    AutoModelForCausalLM.from_config(described).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="GPT2LMHeadModel has MLPs of another kind"):
        shrink.prune(tmp_path / "gpt2", tmp_path / "out", 0.5)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLM, vocab_size=99)).save_pretrained(tmp_path / "llama")
    with pytest.raises(UserError, match="takes nothing away"):
        shrink.prune(tmp_path / "llama", tmp_path / "out", 0.01)


@pytest.mark.parametrize(("architecture", "fusion"), [FUSIONS[at] for at in (1, 2, 3, 4, 6)])
def test_a_student_begins_as_every_second_layer(tmp_path: Path, architecture: str, fusion: str) -> None:
    """A teacher whose odd layers do nothing is known by its even ones."""
    config = config_of(architecture, fusion, llm={**LLM, "num_hidden_layers": 8})
    export(checkpoint_of(tmp_path, "joint", config), tmp_path / "out")
    teacher = load_exported(tmp_path / "out")
    layers: list[Any] = list(decoder_list(teacher.llm))
    for layer in layers[1::2]:
        layer.mlp.down_proj.weight.data.zero_()
        layer.self_attn.o_proj.weight.data.zero_()
    student = shrink.halved(teacher)
    assert student.llm.config.num_hidden_layers == len(decoder_list(student.llm)) == 4
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(student.llm(ids).logits, teacher.llm(ids).logits, atol=1e-5, rtol=0)
    one, other = pixels(0), pixels(1)
    assert (hidden(student, one) - hidden(student, other)).abs().max() > 1e-4
    if fusion in ("early", "late"):
        torch.testing.assert_close(hidden(student, one), hidden(teacher, one), atol=1e-5, rtol=0)


def test_a_student_keeps_the_kinds_of_the_layers_that_it_keeps(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    llm = {**LLM, "model_type": "qwen2", "layer_types": kinds, "use_sliding_window": True, "sliding_window": 8}
    found = export(checkpoint_of(tmp_path, "joint", config_of(llm=llm)), tmp_path / "out")
    assert "`transformers.ByT5Tokenizer` reads its own" in found["notes"][0]  # AutoTokenizer takes Qwen2's
    student = shrink.halved(load_exported(tmp_path / "out"))
    assert student.llm.config.layer_types == ["sliding_attention", "full_attention"]
    assert student.codec is not None
    assert student.codec.decode(student.codec.conversation([Turn("user", "hé 是")]).ids).startswith("User: hé 是")


def test_distillation_is_the_halves_of_both_losses(tmp_path: Path, release: str) -> None:
    config = config_of()
    export(checkpoint_of(tmp_path, "joint", config), tmp_path / "out")
    teacher = load_exported(tmp_path / "out")
    opened = open_training_release(release, tmp_path / "data")
    batch = make_reader(teacher, opened, config, "train", 8, Share())[0]
    model: Any = teacher.model
    with torch.no_grad():
        itself = shrink.distillation_loss(model, model, batch)
        assert float(itself) == pytest.approx(0.5 * float(model(batch)["loss"]), rel=1e-5)
        student: Any = shrink.halved(teacher).model
        loss = float(shrink.distillation_loss(model, student, batch))
        said = [
            one.llm.get_output_embeddings()(one.hidden(one.llm, one.embed(batch), batch)) for one in (model, student)
        ]
    learned = batch.labels[:, 1:] != -100
    known, told = ((logits[:, :-1][learned] / 2).log_softmax(-1) for logits in said)
    divergence = (known.exp() * (known - told)).sum()
    with torch.no_grad():
        expected = 0.5 * student(batch)["loss"] + 0.5 * 4 * divergence
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("stage", ["joint", pytest.param("instruct", marks=pytest.mark.slow)])
def test_a_student_learns_from_the_release(tmp_path: Path, release: str, stage: str) -> None:
    config = config_of("cross_attention", "attention")
    place = checkpoint_of(tmp_path, stage, config, release)
    found = export(place, tmp_path / "out", distill_steps=25, release=release)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["checkpoint", "merged", "distilled"]
    assert rows["merged"]["val/loss"] == pytest.approx(rows["checkpoint"]["val/loss"], abs=1e-5)
    student = load_exported(tmp_path / "out" / "distilled")
    assert AutoConfig.from_pretrained(tmp_path / "out" / "distilled").num_hidden_layers == 2
    teacher = load_exported(tmp_path / "out")
    frozen = {name: tensor for name, tensor in teacher.model.state_dict().items() if name.startswith("vision.")}
    assert frozen
    assert all(torch.equal(student.model.state_dict()[name], tensor) for name, tensor in frozen.items())
    opened = open_training_release(release, tmp_path / "data")
    untaught = shrink.halved(teacher)
    held_out = comparison.held_out_batches(untaught, config, opened, alone())
    before = validate(untaught, untaught.model, held_out, config, alone())["val/loss"]
    assert rows["distilled"]["val/loss"] < before - 0.1
