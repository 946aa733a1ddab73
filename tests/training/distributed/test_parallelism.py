"""Two processes train what one trains: DDP, FSDP2, tensor parallel and pipeline, to within rounding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mmdata.workspace.layout import Workspace
from tests.support.one_process import one_process
from tests.support.tiny_run import LLM, built_stage, first_batch, settings
from tests.support.tiny_towers import SMALL
from training.checkpoint.checkpoints import read_progress
from training.config import TrainConfig
from training.data.batch_types import RowBatch
from training.distributed.parallelism import parallelise
from training.distributed.process_mesh import Mesh
from training.model.encoders import DualEncoder
from training.model.fusion import decoder_list
from training.run import read_result, train
from training.stages.stage_model import load_model
from training.step_log import read_log

STEPS = 3
FAST = {"steps": STEPS, "log_every": 1, "validate_every": STEPS, "lr": 1e-3, "warmup_steps": 0}


def case(stages: list[str], parallel: dict[str, Any], **sections: Any) -> dict[str, Any]:
    config = settings(
        parallel=parallel, log={"peak_tflops": 0.1}, **{"align": FAST, "joint": FAST, "instruct": FAST, **sections}
    )
    return {"stages": stages, "config": config.model_dump(mode="json")}


UNTIED = {**settings().model.model_dump(), "llm": {"kind": "config", "tokenizer": "bytes", "config": LLM}}
TIED = {**UNTIED, "llm": {**UNTIED["llm"], "config": {**LLM, "tie_word_embeddings": True}}}
WINDOW = {**UNTIED, "llm": {**UNTIED["llm"], "sliding_window": 16}}
CROSS = {**UNTIED, "architecture": "cross_attention", "fusion": "hierarchical"}
MASKED = {"masked_weight": 1e-9, "masked_text_weight": 1e-9}
LOSSES = {"infonce": 1.0, "triplet": 0.5, "bce": 0.5}  # the hinge of triplets and the hardest negatives too
FULL = {**FAST, "method": "full", "kl_weight": 0.1}
CASES = {
    "ddp": case(["align", "joint", "instruct"], {"strategy": "ddp"}),
    "ddp-full": case(["instruct"], {"strategy": "ddp"}, instruct=FULL),
    "ddp-siglip-cached": case(["align"], {"strategy": "ddp"}, align={**FAST, "loss": "siglip", "micro_batch": 2}),
    "ddp-several-losses-cached": case(["align"], {"strategy": "ddp"}, align={**FAST, "loss": LOSSES, "micro_batch": 2}),
    "ddp-whole-loss": case(["align"], {"strategy": "ddp"}, align={**FAST, "local_loss": False}),
    "ddp-own-gradient": case(
        ["align"], {"strategy": "ddp"}, align={**FAST, "local_loss": False, "gather_with_grad": False}
    ),
    "ddp-micro": case(["joint"], {"strategy": "ddp"}, joint={**FAST, "micro_batch": 1}),
    "ddp-cross": case(["joint"], {"strategy": "ddp"}, model=CROSS),
    "ddp-masked": case(["align"], {"strategy": "ddp"}, align={**FAST, **MASKED}),
    # One rank has rows of padding alone, or no real sample: it has no picture, and nobody waits for it.
    "ddp-idle-rank": case(["joint"], {"strategy": "ddp"}, joint={**FAST, "batch_size": 2}),
    "ddp-idle-rank-align": case(["align"], {"strategy": "ddp"}, align={**FAST, "batch_size": 40}),
    "ddp-cached": case(["joint", "instruct"], {"strategy": "ddp"}, data={"cache_features": True}),
    "tp-cached": case(["joint"], {"tp": 2}, data={"cache_features": True}),
    "fsdp2-idle-rank": case(["joint"], {"strategy": "fsdp2"}, joint={**FAST, "batch_size": 2}),
    "fsdp2": case(["align", "joint", "instruct"], {"strategy": "fsdp2", "activation_checkpointing": True}),
    "fsdp2-micro": case(
        ["joint"], {"strategy": "fsdp2"}, joint={**FAST, "micro_batch": 1, "kl_weight": 0.1}, model=TIED
    ),
    "tp": case(["align", "joint", "instruct"], {"tp": 2}),
    "tp-cross": case(["joint"], {"tp": 2}, model=CROSS),
    "pp": case(["joint", "instruct"], {"pp": 2}, instruct={**FAST, "method": "full"}),
    "fsdp2-fp16": case(["joint"], {"strategy": "fsdp2", "precision": "fp16"}),
    "tp-fp16": case(["joint"], {"tp": 2, "precision": "fp16"}),
    "pp-fp16": case(["joint"], {"pp": 2, "precision": "fp16"}),
    "pp-window": case(["joint"], {"pp": 2}, model=WINDOW),
    "pp-tied": case(["joint"], {"pp": 2}, joint={**FAST, "micro_batch": 1}, model=TIED),
}


QUICK = ("ddp-several-losses-cached", "ddp-cached", "fsdp2-micro", "tp-cross", "pp-tied")  # each strategy once
LONG = tuple(name for name in CASES if name not in QUICK)


@pytest.fixture(scope="module")
def two(numbered: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The output of a case on two processes; its first use trains all quick cases, or all long ones, in one launch."""

    @cache
    def trained(names: tuple[str, ...]) -> Path:
        output = tmp_path_factory.mktemp("two")
        (output / "cases.json").write_text(json.dumps({name: CASES[name] for name in names}))
        launch(numbered, output / "cases.json", output)
        return output

    return lambda name: trained(QUICK if name in QUICK else LONG) / name


def launch(release: str, cases: Path, output: Path, processes: int = 2) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = [*torchrun, "-m", "tests.support.parity", release, str(cases), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_two_processes_train_what_one_trains(
    numbered: str, two: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    config = TrainConfig.model_validate(CASES[name]["config"])
    alone = settings(parallel={"precision": config.parallel.precision}).parallel
    # Cached features, and all of a pass in fp16, are rounded to float16: Adam then moves a weight of next to no
    # gradient the other way.
    is_rounded = config.data.cache_features or config.parallel.precision == "fp16"
    data = config.data.model_copy(update={"cache_features": False})
    config = config.model_copy(update={"parallel": alone, "data": data})
    results = train(numbered, CASES[name]["stages"], config, tmp_path)
    for result in results:
        ours, theirs = result.folder, two(name) / result.stage
        assert losses(theirs) == pytest.approx(losses(ours), rel=2e-3 if is_rounded else 2e-4), result.stage
        assert len(losses(ours)) == STEPS
        assert all(line["mfu"] > 0 for line in read_log(theirs) if line["kind"] == "train")
        done = read_result(theirs)
        assert done is not None
        # Ranks draw other masks: the masked loss itself differs, its weight is next to nothing.
        ours_state, theirs_state = (
            dict(load_model(path)[0].model.state_dict()) for path in (result.checkpoint, done.checkpoint)
        )
        assert ours_state.keys() == theirs_state.keys()
        assert ours_state
        for key in ours_state:
            torch.testing.assert_close(
                theirs_state[key],
                ours_state[key],
                rtol=1e-2,
                atol=2e-3 if is_rounded else 2e-4,
                msg=lambda m, k=key: f"{k}: {m}",
            )
        assert read_progress(done.checkpoint).consumed == read_progress(result.checkpoint).consumed
        for key, value in result.metrics.items():
            assert done.metrics[key] == pytest.approx(value, rel=5e-3, abs=1e-6), key


def test_a_run_of_two_processes_resumes_on_one(numbered: str, two: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("fsdp2-micro", "tp-cross", "pp-tied"):
        shutil.copytree(two(name), tmp_path / name)
        before = CASES[name]["config"]
        config = TrainConfig.model_validate(
            {**before, "parallel": {}, "joint": {**before["joint"], "steps": STEPS + 2}}
        )
        lines: list[dict[str, Any]] = []
        result = train(numbered, ["joint"], config, tmp_path / name, on_line=lines.append)[0]
        assert [line["step"] for line in lines if line["kind"] == "train"] == [STEPS + 1, STEPS + 2]
        assert result.last_loss < losses(tmp_path / name / "joint")[0]


@pytest.mark.parametrize("model", [TIED, UNTIED])
def test_fsdp2_shards_the_kl_reference_and_untied_embeddings(model: dict[str, Any]) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    config = settings(model=model, joint={"kl_weight": 0.1}, parallel={"strategy": "fsdp2"})
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = dist.init_device_mesh("cpu", (1, 2, 1), mesh_dim_names=("pp", "dp", "tp"))
        groups = {name: mesh.get_group(name) for name in ("pp", "dp", "tp")}
        built = built_stage("joint", config)
        parallelise(built.model, built.llm, built.blocks, config.parallel, Mesh(torch.device("cpu"), groups, mesh))
        words = built.llm.get_input_embeddings()
        assert isinstance(words, FSDPModule) == (model is UNTIED)
        for llm in (built.llm, built.model.reference):  # type: ignore[union-attr]
            layers = [p for layer in decoder_list(llm) for p in layer.parameters()]  # type: ignore[arg-type]
            assert all(isinstance(p, DTensor) and p.to_local().numel() <= p.numel() / 2 for p in layers)
    finally:
        dist.destroy_process_group()


SOUND = {"kind": "logmel_vit", "config": SMALL, "mel_bins": 16, "seconds": 0.5}


@pytest.mark.parametrize("stage", ["align", "joint"])
def test_under_fsdp2_in_bf16_sound_and_temperature_stay_fp32(stage: Any, mixed: Workspace, tmp_path: Path) -> None:
    """The layers compute in bf16, on weights whose masters and gradients are fp32."""
    model = {**settings().model.model_dump(), "audio": SOUND}
    config = settings(model=model, parallel={"strategy": "fsdp2", "precision": "bf16"})
    built = built_stage(stage, config)
    waves: list[torch.dtype] = []
    layers: list[tuple[torch.dtype, torch.dtype]] = []  # of the input and of a weight
    audio: Any = built.model.audio
    tokens_of = audio.tokens
    audio.tokens = lambda wave: (waves.append(wave.dtype), tokens_of(wave))[1]
    for block in built.blocks:
        weight = next(name for name, parameter in block.named_parameters() if parameter.ndim == 2)
        block.register_forward_pre_hook(
            lambda module, inputs, name=weight: layers.append((inputs[0].dtype, module.get_parameter(name).dtype))
        )
    batch = first_batch(built, config, str(mixed.root), tmp_path, 14)
    sound = batch.sound.data if isinstance(batch, RowBatch) else batch.sound
    assert sound is not None
    temperature = float(built.model.logit_scale.detach()) if isinstance(built.model, DualEncoder) else None
    with one_process(tmp_path) as mesh:
        wrapped = parallelise(built.model, built.llm, built.blocks, config.parallel, mesh)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = wrapped(batch)
        if temperature is not None:
            assert outputs["scale"].dtype == torch.float32 and float(outputs["scale"].detach()) == temperature
        sum(output.float().sum() for output in outputs.values()).backward()
        assert waves == [torch.float32]
        assert layers == [(torch.bfloat16, torch.bfloat16)] * len(built.blocks)
        gradients = [parameter.grad for parameter in wrapped.parameters() if parameter.grad is not None]
        assert gradients and {gradient.dtype for gradient in gradients} == {torch.float32}
        assert {parameter.dtype for parameter in wrapped.parameters()} == {torch.float32}
