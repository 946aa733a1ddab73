"""A run: resumed to the bit, stopped by signals, tied to its release, frozen where it says so."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import state_dict_saver
from transformers import AddedToken

from mmdata.errors import DataError, UserError
from tests.support.own_data import in_record_form, write_list, write_pictures
from tests.support.tiny_run import LLM, release_at, settings
from training.checkpoint.checkpoint_files import CheckpointReader
from training.checkpoint.checkpoints import find_checkpoint, latest_checkpoint, read_progress
from training.data.text_codec import load_tokenizer
from training.run import run_lock, train
from training.stages.stage_model import load_model
from training.step_log import read_log
from training.trainer import StageResult

NOISY = {"kind": "config", "config": {**LLM, "attention_dropout": 0.3}, "tokenizer": "bytes"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    return release_at(tmp_path_factory.mktemp("release"))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    built, _ = load_model(checkpoint)
    return dict(built.model.state_dict())


def identical(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


class Cut(Exception):
    """Stands for whatever ends a process."""


def cut_at(step: int) -> Any:
    def on_line(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == step:
            raise Cut

    return on_line


@pytest.mark.parametrize("stage", ["align", "joint", "instruct"])
def test_resumed_run_equals_the_uninterrupted_one_to_the_bit(release: str, tmp_path: Path, stage: str) -> None:
    section = {"steps": 6, "checkpoint_every": 2, "log_every": 1}
    model = {**settings().model.model_dump(), "llm": NOISY}
    lora = {"lora": {"r": 4, "dropout": 0.2}} if stage == "instruct" else {}
    config = settings(model=model, **{stage: {**section, **lora}})
    whole = train(release, [stage], config, tmp_path / "whole")[0]
    with pytest.raises(Cut):
        train(release, [stage], config, tmp_path / "cut", on_line=cut_at(5))
    assert read_progress(find_checkpoint(tmp_path / "cut" / stage)).step == 4
    lines: list[dict[str, Any]] = []
    resumed = train(release, [stage], config, tmp_path / "cut", on_line=lines.append)[0]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5, 6]
    assert identical(weights(whole.checkpoint), weights(resumed.checkpoint))
    assert whole.last_loss == resumed.last_loss
    again = train(release, [stage], config, tmp_path / "cut", on_line=lambda line: pytest.fail(str(line)))[0]
    assert again.checkpoint == resumed.checkpoint


def test_a_resumed_stage_compares_with_the_model_that_it_started_from(release: str, tmp_path: Path) -> None:
    kl_stage = {"method": "full", "kl_weight": 10.0, "lr": 0.01, "steps": 3, "checkpoint_every": 1, "log_every": 1}
    config = settings(joint={"steps": 2, "lr": 0.01}, instruct=kl_stage)
    whole = train(release, ["joint", "instruct"], config, tmp_path / "whole")[1]
    shutil.copytree(tmp_path / "whole" / "joint", tmp_path / "cut" / "joint")
    with pytest.raises(Cut):
        train(release, ["instruct"], config, tmp_path / "cut", on_line=cut_at(3))
    assert read_progress(find_checkpoint(tmp_path / "cut" / "instruct")).step == 2
    assert train(release, ["instruct"], config, tmp_path / "cut")[0].last_loss == whole.last_loss


def test_stages_follow_each_other_and_freeze_what_they_say(release: str, tmp_path: Path) -> None:
    config = settings()
    results = train(release, ["align", "joint", "instruct"], config, tmp_path)
    assert [result.stopped for result in results] == ["finished"] * 3
    align, joint, instruct = (weights(result.checkpoint) for result in results)
    frozen = [name for name in joint if name.startswith("vision.")]
    assert frozen
    assert all(torch.equal(joint[name], align[name]) for name in frozen)
    assert all(torch.equal(instruct[name], joint[name]) for name in frozen)
    assert any(not torch.equal(joint[name], instruct[name]) for name in joint if name.startswith("connector."))
    base = {
        name: name.replace(".base_layer", "") for name in instruct if name.startswith("llm.") and "lora_" not in name
    }
    assert all(torch.equal(instruct[name], joint[old]) for name, old in base.items())
    written = CheckpointReader(results[2].checkpoint).read_metadata().state_dict_metadata
    in_checkpoint = {name.removeprefix("model.") for name in written if name.startswith("model.")}
    assert in_checkpoint == {name for name in instruct if "lora_" in name or name.startswith("connector.")}
    fresh, _ = load_model(results[0].checkpoint)
    assert any(name.startswith("vision.") for name, p in fresh.model.named_parameters() if p.requires_grad)
    lines = read_log(results[1].folder)
    assert {"step", "loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "mfu", "data_wait"} <= lines[0].keys()
    assert any(line["kind"] == "validation" and line["val/perplexity"] > 1 for line in lines)


def test_a_checkpoint_of_another_release_is_refused_unless_allowed(release: str, tmp_path: Path) -> None:
    other = release_at(tmp_path / "other", samples=40)
    config = settings()
    train(release, ["align"], config, tmp_path / "out")
    for stage in ("align", "joint"):
        with pytest.raises(UserError, match="was trained on release"):
            train(other, [stage], config, tmp_path / "out")
    allowed = config.model_copy(update={"allow_release_change": True})
    assert train(other, ["joint"], allowed, tmp_path / "out")[0].steps == 4


def test_a_checkpoint_of_another_model_is_refused(release: str, tmp_path: Path) -> None:
    train(release, ["joint"], settings(), tmp_path)
    model = {**settings().model.model_dump(), "fusion": "late"}
    with pytest.raises(UserError, match=r"\[model\] differs in fusion"):
        train(release, ["joint"], settings(model=model, joint={"steps": 9}), tmp_path)


def test_early_stopping_keeps_the_best_checkpoint(release: str, tmp_path: Path) -> None:
    early = {"metric": "val/loss", "patience": 2, "min_delta": 0.0}
    section = {
        "steps": 40,
        "validate_every": 1,
        "validate_samples": 16,
        "lr": 0.3,
        "warmup_steps": 0,
        "early_stop": early,
        "checkpoint_every": 1,
    }
    result = train(release, ["align"], settings(align=section), tmp_path)[0]
    assert result.stopped == "early"
    assert result.steps < 40
    values = [line["val/loss"] for line in read_log(result.folder) if line["kind"] == "validation"]
    assert read_progress(result.checkpoint).step == 1 + values.index(min(values))
    assert len(values) == result.steps == 1 + values.index(min(values)) + 2


def test_a_loss_that_is_not_a_number_ends_the_run_before_the_update(release: str, tmp_path: Path) -> None:
    section = {"steps": 30, "lr": 1e25, "warmup_steps": 0, "grad_clip": None, "checkpoint_every": 1, "log_every": 1}
    with pytest.raises(DataError, match="not a number"):
        train(release, ["joint"], settings(joint=section), tmp_path)
    last = latest_checkpoint(tmp_path / "joint" / "checkpoints")
    assert last is not None
    assert all(bool(tensor.isfinite().all()) for tensor in weights(last).values())


def test_a_checkpoint_that_cannot_be_written_ends_the_run_soon(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state_dict_saver, "save", full)
    config = settings(align={"steps": 10_000, "checkpoint_every": 2, "log_every": 1, "validate_every": 10**6})
    lines: list[dict[str, Any]] = []
    with pytest.raises(DataError, match=r"step-00000002: the checkpoint cannot be written.*No space left on device"):
        train(release, ["align"], config, tmp_path, on_line=lines.append)
    assert lines[-1]["step"] <= 4, "the save at step 4 waits for the one at step 2, at the latest"


SCRIPT = """
import json, sys
from pathlib import Path
from training.config import TrainConfig
from training.run import train
config = TrainConfig.model_validate(json.loads(sys.argv[2]))
show = lambda line: print(json.dumps(line), flush=True)
print([r.stopped for r in train(sys.argv[1], ["align"], config, Path(sys.argv[3]), on_line=show)], flush=True)
"""


def test_sigterm_saves_and_exits_the_same_command_resumes_and_no_other_run_comes_between(
    release: str, tmp_path: Path
) -> None:
    config = settings(align={"steps": 100_000, "log_every": 1, "validate_every": 10**6, "checkpoint_every": 10**6})
    arguments = [sys.executable, "-c", SCRIPT, release, config.model_dump_json(), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for step in (1, 2, 3):
        assert json.loads(process.stdout.readline())["step"] == step
    with pytest.raises(UserError, match=rf"another run trains here: process {process.pid} on"), run_lock(tmp_path, 0):
        raise AssertionError("two runs share the folder")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "signal" in out.splitlines()[-1]
    saved = latest_checkpoint(tmp_path / "align" / "checkpoints")
    assert saved is not None
    step = read_progress(saved).step
    assert json.loads((tmp_path / "align" / "result.json").read_text())["stopped"] == "signal"
    shorter = settings(align={"steps": step + 2, "log_every": 1})
    lines: list[dict[str, Any]] = []
    assert train(release, ["align"], shorter, tmp_path, on_line=lines.append)[0].stopped == "finished"
    assert lines[0]["step"] == step + 1
    assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    def hold() -> None:
        with run_lock(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    holder = multiprocessing.get_context("fork").Process(target=hold)
    holder.start()
    holder.join(timeout=60)
    assert holder.exitcode == -signal.SIGKILL
    assert f"process {holder.pid} on" in (tmp_path / ".lock").read_text()
    with run_lock(tmp_path, wait_s=0):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_truncated_shard_is_named(release: str, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "copy")
    shard = next((tmp_path / "copy" / "shards").glob("train-*.tar"))
    shard.write_bytes(shard.read_bytes()[:-2048])
    with pytest.raises(DataError, match=shard.name):
        train(str(tmp_path / "copy"), ["align"], settings(), tmp_path / "out")


def test_the_aligned_towers_open_as_the_next_scorer(release: str, tmp_path: Path) -> None:
    import numpy as np

    from mmdata.config import Score
    from mmdata.score.scorer import load_scorer

    result = train(release, ["align"], settings(), tmp_path)[0]
    scorer = load_scorer(Score(model=str(result.folder), device="cpu"))
    built, _ = load_model(result.checkpoint)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        model: Any = built.model
        normalised = model.normalised(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        expected = torch.nn.functional.normalize(model.vision(normalised), dim=-1).numpy()
        texts = torch.nn.functional.normalize(model.text(model.tokenize(["a sea", "a tree"])), dim=-1).numpy()
    assert np.abs(scorer.embed_images(pixels) - expected).max() < 1e-5
    assert np.abs(scorer.embed_texts(["a sea", "a tree"]) - texts).max() < 1e-5


def test_time_passes_in_the_log(release: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    result = train(release, ["align"], settings(align={"log_every": 1}), tmp_path)[0]
    lines = [line for line in read_log(result.folder) if line["kind"] == "train"]
    assert len(lines) == 4
    assert lines[-1]["eta_s"] == 0
    assert 0 < result.seconds < time.monotonic() - begun


def test_a_run_may_go_on_with_another_attention(release: str, tmp_path: Path) -> None:
    train(release, ["joint"], settings(joint={"steps": 1}), tmp_path)
    base = settings().model.model_dump()
    other = settings(model={**base, "llm": {**base["llm"], "attention": "eager"}}, joint={"steps": 2, "log_every": 1})
    lines: list[dict[str, Any]] = []
    train(release, ["joint"], other, tmp_path, on_line=lines.append)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2]


def test_a_language_model_that_mixes_samples_is_refused_before_the_first_step(release: str, tmp_path: Path) -> None:
    mamba = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
    llm = {"kind": "config", "tokenizer": "bytes", "config": {**mamba, "num_attention_heads": 2}}
    model = {**settings().model.model_dump(), "llm": llm}
    with pytest.raises(UserError, match=r"see each other in MambaForCausalLM.* Remedy: pack = false"):
        train(release, ["joint"], settings(model=model), tmp_path)
    loose = settings(model=model, joint={"pack": False, "steps": 1})
    assert train(release, ["joint"], loose, tmp_path)[0].steps == 1


def test_an_end_of_turn_that_is_not_the_end_of_text_is_told_at_the_start(release: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer("bytes")
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role }}: {{ message.content }}<|im_end|>\n{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    llm = {"kind": "config", "tokenizer": str(tmp_path / "tokenizer"), "config": LLM}
    config = settings(model={**settings().model.model_dump(), "llm": llm}, instruct={"steps": 1})
    with pytest.warns(
        UserWarning, match=r"token is </s>, but its chat template ends a turn with <\|im_end\|>.* Remedy"
    ):
        (result,) = train(release, ["instruct"], config, tmp_path / "out")
    model, codec = load_model(result.checkpoint)[0].generative()
    assert set(model.llm.generation_config.eos_token_id) == codec.ends


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    names = write_pictures(folder, 12)
    return write_list(folder / "own.json", [in_record_form(name, said=f"cat {name}") for name in names])


def test_a_mixture_resumes_to_the_bit_and_its_data_are_checked(release: str, own_file: Path, tmp_path: Path) -> None:
    def run(output: str, weight: float = 0.5, **options: Any) -> StageResult:
        own = {"path": str(own_file), "weight": weight}
        section = {"steps": 4, "checkpoint_every": 2, "log_every": 1}
        config = settings(
            instruct=section, data={"sources": [own], **options.pop("data", {})}, **options.pop("top", {})
        )
        return train(release, ["instruct"], config, tmp_path / output, **options)[0]

    whole = run("whole")
    with pytest.raises(Cut):
        run("cut", on_line=cut_at(3))
    lines: list[dict[str, Any]] = []
    assert identical(weights(whole.checkpoint), weights(run("cut", on_line=lines.append).checkpoint))
    assert [(line["records"], line["bad"]) for line in lines if line["kind"] == "records"] == [(12, 0)]
    progress = read_progress(whole.checkpoint)
    assert [source["weight"] for source in progress.sources] == [1.0, 0.5]
    assert progress.release_id.endswith(" + own.json")
    with pytest.raises(UserError, match=r"was trained on release .* \+ own.json .*Remedy: use another --output"):
        run("whole", weight=2.0)
    with pytest.raises(UserError, match="was trained on release"):
        train(release, ["instruct"], settings(), tmp_path / "whole")
    assert run("whole", weight=2.0, top={"allow_release_change": True}).steps == 4


def test_own_data_alone_go_on_from_the_stage_before_whatever_it_was_trained_on(
    release: str, own_file: Path, tmp_path: Path
) -> None:
    before = train([release], ["joint"], settings(), tmp_path)[0]
    after = train([str(own_file)], ["instruct"], settings(), tmp_path)[0]
    joint, instruct = weights(before.checkpoint), weights(after.checkpoint)
    frozen = [name for name in joint if name.startswith("vision.")]
    assert frozen
    assert all(torch.equal(joint[name], instruct[name]) for name in frozen)
    assert read_progress(after.checkpoint).release_id == "own.json"


def test_a_stage_without_data_is_refused_before_any_is_trained(own_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage `align` reads releases"):
        train([str(own_file)], ["instruct", "align"], settings(), tmp_path)
    assert not (tmp_path / "instruct").exists()


def test_a_run_goes_on_without_masked_prediction_where_its_decoder_is_another(release: str, tmp_path: Path) -> None:
    plain, masked = ({"steps": steps, "masked_weight": weight} for steps, weight in ((2, 0.0), (3, 1.0)))
    train(release, ["align"], settings(align=plain), tmp_path / "out")
    with pytest.raises(DataError, match=r"lacks \d+ tensors .* such as masked\..*align\.masked_weight=0"):
        train(release, ["align"], settings(align=masked), tmp_path / "out")
    (result,) = train(release, ["align"], settings(align=plain | {"steps": 3}), tmp_path / "out")
    assert result.steps == 3

    train(release, ["align"], settings(align=masked | {"steps": 2}), tmp_path / "with")
    (result,) = train(release, ["align"], settings(align=plain | {"steps": 3}), tmp_path / "with")
    assert result.steps == 3
