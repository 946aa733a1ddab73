"""`mmdata train`, `evaluate` and `export`. What they start is a stand-in; the last test trains for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.errors import UserError
from mmdata.report.stage import report_release
from tests.cli.conftest import Mmdata
from tests.support.workspaces import Built, build, release

STANDINS = Path(__file__).parents[1] / "standins"


@dataclass
class Ready:
    """A release and its corpus.yaml."""

    built: Built
    config: Path
    release_id: str

    @property
    def folder(self) -> Path:
        return Path(self.built.workspace.release_dir(self.release_id).path)

    @property
    def models(self) -> Path:
        return self.folder.parents[1] / "training" / self.release_id

    def say(self, **train: object) -> None:
        corpus = self.built.corpus.model_dump(mode="json", exclude_none=True)
        self.config.write_text(yaml.safe_dump({**corpus, "train": train}))


@pytest.fixture
def mmdata(mmdata_process: Mmdata) -> Mmdata:
    """In a process of its own, where the stand-ins take the place of `training`."""
    return mmdata_process


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ready:
    built = build(str(tmp_path / "workspace"), {"web-000000": range(80)})
    made = Ready(built, tmp_path / "corpus.yaml", release(built))
    made.say()
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    monkeypatch.delenv("MMDATA_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return made


def test_training_settings_as_corpus_yaml_name_the_right_option() -> None:
    done = CliRunner().invoke(app, ["train", "latest", "--config", "train.toml"])
    assert isinstance(done.exception, UserError)
    assert "Remedy: --settings train.toml" in str(done.exception)


def test_train_shows_each_stage_and_puts_the_models_beside_the_release(ready: Ready, mmdata: Mmdata) -> None:
    done = mmdata("train", "latest", "-c", ready.config)
    assert done.returncode == 0, done.stderr
    assert "align step 1 of 20: loss 3.9, 100 samples/s" in done.stdout
    assert "align step 20 of 20: validation loss 1.5, recall@1 0.5\n" in done.stdout
    for stage in ("align", "joint", "instruct"):
        assert f"done    {stage:<9} 20 steps, 160 samples, 3.9 first loss, 2 last loss" in done.stdout
        assert (ready.models / "tiny" / stage / "result.json").exists()
    assert f"mmdata evaluate {ready.models / 'tiny' / 'instruct'} latest" in done.stdout
    assert "\x1b" not in done.stdout


def test_train_of_an_id_does_what_corpus_yaml_says_and_set_goes_over_it(ready: Ready, mmdata: Mmdata) -> None:
    ready.say(preset="l14-1b", set=["steps=7"], output=str(ready.config.parent / "elsewhere"))
    done = mmdata("train", ready.release_id, "--stage", "align", "-c", ready.config)
    assert "align step 7 of 7" in done.stdout
    assert (ready.config.parent / "elsewhere" / ready.release_id / "l14-1b" / "align" / "result.json").exists()
    done = mmdata("train", "latest", "--stage", "joint", "--set", "steps=4", "-c", ready.config)
    assert "joint step 4 of 4" in done.stdout


def test_train_of_a_path_needs_no_corpus_and_takes_none(ready: Ready, mmdata: Mmdata) -> None:
    ready.say(preset="l14-1b")
    done = mmdata("train", ready.folder, "--stage", "align")
    assert done.returncode == 0, done.stderr
    assert (ready.models / "run" / "align" / "result.json").exists()
    done = mmdata("train", ready.folder, "--stage", "align", "--preset", "smollm2", "--output", "here")
    assert Path("here/align/result.json").exists()


def test_other_data_than_one_release_need_an_output(ready: Ready, mmdata: Mmdata) -> None:
    for sources in ([ready.folder, ready.folder], ["own.json"], []):
        done = mmdata("train", *sources, "--preset", "tiny")
        assert done.returncode == 2
        assert "Remedy: --output DIR" in done.stderr
    done = mmdata("train", ready.folder, ready.release_id, "own.json", "--stage", "align", "--output", "here")
    assert done.returncode == 0, done.stderr
    assert f"data {ready.folder}, {ready.folder}, own.json; models in here" in done.stdout.replace("\n", "")
    assert Path("here/align/result.json").exists()


@pytest.mark.parametrize(("fail", "code"), [("data", 1), ("user", 2)])
def test_exit_codes_tell_whose_mistake_it_was(ready: Ready, mmdata: Mmdata, fail: str, code: int) -> None:
    done = mmdata("train", "latest", "--set", f"fail={fail}", "-c", ready.config)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--stage", "aling"), ("--preset",), ("--distill", "3")])
def test_a_wrong_argument_is_a_user_error(ready: Ready, mmdata: Mmdata, arguments: tuple[str, ...]) -> None:
    assert mmdata("train", "latest", "-c", ready.config, *arguments).returncode == 2


def test_ctrl_c_writes_a_checkpoint_and_the_same_command_goes_on(ready: Ready, mmdata: Mmdata) -> None:
    command = [str(Path(sys.executable).with_name("mmdata")), "train", "latest", "--stage", "align"]
    log = ready.models / "tiny" / "align" / "log.jsonl"
    process = subprocess.Popen(
        [*command, "--set", "pause=0.1", "--set", "steps=600"], stdout=subprocess.PIPE, text=True
    )
    while not (log.exists() and log.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in said.replace("\n", " ")
    steps = len(log.read_text().splitlines())
    done = mmdata(*command[1:], "--set", f"steps={steps + 2}")
    assert f"align step {steps + 1} of {steps + 2}" in done.stdout


def test_evaluate_prints_metrics_and_answers_and_hands_its_options_on(ready: Ready, mmdata: Mmdata) -> None:
    mmdata("train", "latest", "--stage", "joint")
    done = mmdata("evaluate", ready.models / "tiny" / "joint", "latest", "--samples", "12", "--answers", "5")
    assert done.returncode == 0, done.stderr
    assert "joint, 12 held-out samples" in done.stdout
    for word in ("perplexity", "8", "what?", "<b>x</b> | [a](b)", "a boat"):
        assert word in done.stdout
    said = json.loads((ready.models / "tiny" / "joint" / "metrics.json").read_text())["options"]
    assert said == {**UNASKED, "samples": 12, "generate": 5}


UNASKED = {"generated": None, "inception": None, "classify": None, "classes": None, "class_prompt": "a photo of {}"}


def test_evaluate_prints_the_classification_report(ready: Ready, mmdata: Mmdata) -> None:
    mmdata("train", "latest", "--stage", "align")
    align = ready.models / "tiny" / "align"
    options = ("--classify", "concept", "--class-prompt", "the {}")
    done = mmdata("evaluate", align, "latest", *options)
    assert done.returncode == 0, done.stderr
    for word in ("precision", "recall", "f1", "support", "cat", "0.250", "macro average", "weighted average"):
        assert word in done.stdout
    said = json.loads((align / "metrics.json").read_text())["options"]
    assert said == {**UNASKED, "samples": None, "generate": 64, "classify": "concept", "class_prompt": "the {}"}
    forgot = mmdata("evaluate", align, "latest", "--classes", "names.txt")
    assert forgot.returncode == 2
    assert "Remedy: add `--classify concept`" in forgot.stderr
    assert "captions beside their pictures" not in done.stdout, "the release has no report"


def test_captions_of_models_elsewhere_stand_in_the_report_too(ready: Ready, mmdata: Mmdata) -> None:
    mmdata("train", "latest", "--stage", "joint", "--output", "models")
    page = ready.folder / "report.html"
    report_release(page.parent)
    done = mmdata("evaluate", "models/joint", "latest")
    assert f"captions beside their pictures: {page}#captions" in done.stdout.replace("\n", "")
    assert "a boat" in page.read_text().partition('id="captions"')[2]


def test_report_finds_the_models_in_the_workspace(ready: Ready) -> None:
    stage = ready.models / "tiny" / "joint"
    stage.mkdir(parents=True)
    table = pl.read_parquet(ready.folder / "selection.parquet").filter(pl.col("split") == "validation")
    caption = {"uid": table["uid"][0], "expected": "a ship", "generated": "a boat"}
    found = {"release_id": ready.release_id, "step": 20, "metrics": {}, "answers": [caption]}
    (stage / "metrics.json").write_text(json.dumps(found))
    done = CliRunner().invoke(app, ["report", "latest", "-c", str(ready.config)])
    assert done.exit_code == 0, done.output
    assert "a boat" in (ready.folder / "report.html").read_text().partition('id="captions"')[2]


def test_export_prints_its_table_and_hands_its_options_on(ready: Ready, mmdata: Mmdata) -> None:
    mmdata("train", "latest", "--stage", "align")
    options = ("--int8", "--prune", "0.5", "--distill", "10", "--llava", "--release", "latest")
    done = mmdata("export", ready.models / "tiny" / "align", "out", *options)
    assert done.returncode == 0, done.stderr
    for line in (
        "| int8 | True |",
        "| prune | 0.5 |",
        "| distill | 10 |",
        "| llava | True |",
        f"| release | {ready.folder} |",
    ):
        assert line in done.stdout


@pytest.mark.parametrize("command", [("evaluate", "nowhere", "latest"), ("export", "nowhere", "out")])
def test_a_model_that_is_not_there_is_a_user_error(ready: Ready, mmdata: Mmdata, command: tuple[str, ...]) -> None:
    done = mmdata(*command)
    assert done.returncode == 2
    assert "nowhere: no such folder" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_training_is_trained_and_measured(
    ready: Ready, mmdata: Mmdata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    small = [f"--set={pair}" for pair in ("align.steps=3", "align.batch_size=8", "align.log_every=1", "data.workers=0")]
    command = ("train", "latest", "--preset", "tiny", "--stage", "align", *small)
    done = mmdata(*command)
    assert done.returncode == 0, done.stderr
    assert "done    align     3 steps, 24 samples" in done.stdout
    measured = mmdata("evaluate", ready.models / "tiny" / "align", "latest")
    assert measured.returncode == 0, measured.stderr
    assert "text_to_image/recall@1" in measured.stdout
    wrong = mmdata(*command, "--set", "align.step=5")
    assert wrong.returncode == 2
    assert "did you mean `steps`" in wrong.stderr
