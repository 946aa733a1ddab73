"""The training assets on a real Dagster instance, each stage in a process of its own.

What is trained there is a stand-in, so that the graph itself is tested in seconds; the last test trains for real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import dagster as dg
import pytest
import yaml

from pipelines.definitions import defs
from pipelines.home import settings_template
from pipelines.instance import open_instance
from pipelines.launch import STOP_TIMEOUT_S
from pipelines.watcher import watched_by
from tests.support.workspaces import Built, build, release

STANDINS = Path(__file__).parents[1] / "standins"
SMALL = [
    *("align.steps=30", "align.batch_size=32", "align.warmup_steps=3", "joint.steps=8", "joint.batch_size=8"),
    *("instruct.steps=8", "instruct.batch_size=8", "data.workers=0"),
    *(f"{stage}.log_every=1" for stage in ("align", "joint", "instruct")),
]
"""The preset `tiny`, smaller still."""
MODELS = ("aligned_model", "joint_model", "instructed_model")


@dataclass
class Trained:
    """A workspace with a release, and the corpus.yaml that trains on it."""

    built: Built
    config: Path
    release_id: str

    @property
    def output(self) -> Path:
        return Path(self.built.workspace.root.path) / "training" / self.release_id / "run"

    def say(self, *overrides: str, **train: object) -> None:
        corpus = self.built.corpus.model_dump(mode="json", exclude_none=True)
        corpus["train"] = {"preset": None, "set": list(overrides), **train}
        self.config.write_text(yaml.safe_dump(corpus))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    built = build(str(tmp_path / "workspace"), {"web-000000": range(80)})
    made = Trained(built, tmp_path / "corpus.yaml", release(built))
    made.say()
    monkeypatch.setenv("MMDATA_CONFIG", str(made.config))
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)  # the checkout itself would come before PYTHONPATH
    return made


def run(instance: dg.DagsterInstance, *assets: str, **options: object) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("train_release").execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in assets] or None,
        raise_on_error=False,
        **options,  # type: ignore[arg-type]
    )


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    told = event.step_failure_data.user_failure_data
    return str(told.description if told else event.step_failure_data.error)


def retries(result: dg.ExecuteInProcessResult) -> int:
    return len(result.filter_events(lambda event: event.is_step_up_for_retry))


def logged(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id)]


def test_job_trains_the_three_stages_on_the_latest_release_and_measures_them(
    trained: Trained, instance: dg.DagsterInstance
) -> None:
    result = run(instance)
    assert result.success
    assert sorted(path.name for path in trained.output.iterdir()) == ["align", "instruct", "joint"]
    checks = {(check.asset_key.to_user_string(), check.check_name) for check in result.get_asset_check_evaluations()}
    assert checks == {(model, name) for model in MODELS for name in ("loss_fell", "trained_on_release")}
    assert all(check.passed and check.blocking for check in result.get_asset_check_evaluations())
    lines = logged(instance, result)
    assert any(line.startswith("align step 1 of 20: loss 3.9, 100 samples/s") for line in lines)
    assert any(line.startswith("instruct step 20 of 20: loss 2") for line in lines)

    align = result.asset_materializations_for_node("aligned_model")[0].metadata
    assert align["last_loss"].value == 2
    assert align["val/recall@1"].value == 0.5
    assert align["samples_per_s"].value == 100
    assert align["loss"].value.startswith("![loss](data:image/svg+xml;base64,")
    assert len(align["loss"].value) < 28_000
    assert align["checkpoint"].value == str(trained.output / "align" / "checkpoints" / "step-00000020")
    assert align["scorer"].value == str(trained.output / "align" / "scorer")
    assert "scorer" not in result.asset_materializations_for_node("joint_model")[0].metadata
    measured = result.asset_materializations_for_node("evaluation")[0].metadata
    rows = [record.data for record in measured["metrics"].value.records]
    assert {"metric": "recall@1", "align": 0.5, "joint": None, "instruct": None} in rows
    assert measured["joint/perplexity"].value == 8
    options = json.loads((trained.output / "joint" / "metrics.json").read_text())["options"]
    assert options == {"samples": 5000, "generate": 64}
    answer = measured["answers"].value.records[0].data  # plain cells: nothing in them is obeyed
    assert (answer["stage"], answer["expected"]) == ("joint", "<b>x</b> | [a](b)")


def test_a_watcher_in_the_same_process_sees_how_far_a_stage_is(
    trained: Trained, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_of = SimpleNamespace(align=SimpleNamespace(steps=20))
    monkeypatch.setattr("training.config.load_train_config", lambda *_: steps_of)  # the stand-in's are in the child
    trained.say("pause=0.2")
    watcher = Mock()
    with watched_by(watcher):
        assert run(instance, "aligned_model").success
    stage, step, steps = watcher.progress.call_args.args
    assert (stage, steps) == ("align", 20)
    assert 0 < step <= 20
    assert watcher.finished.call_args.args[0].counts["steps"] == 20


def test_a_finished_stage_is_not_trained_again(trained: Trained, instance: dg.DagsterInstance) -> None:
    assert run(instance, "aligned_model").success
    before = (trained.output / "align" / "log.jsonl").read_bytes()
    again = run(instance, "aligned_model")
    assert again.success
    assert again.asset_materializations_for_node("aligned_model")[0].metadata["steps"].value == 20
    assert (trained.output / "align" / "log.jsonl").read_bytes() == before


def test_a_later_stage_goes_on_from_the_release_of_the_model_above(
    trained: Trained, instance: dg.DagsterInstance
) -> None:
    assert run(instance, "aligned_model").success
    trained.built.workspace.set_latest("0123456789abcdef")  # a newer release, made meanwhile
    assert run(instance, "joint_model").success
    assert (trained.output / "joint" / "result.json").exists()


def test_a_stage_without_the_one_above_says_what_to_do(trained: Trained, instance: dg.DagsterInstance) -> None:
    result = run(instance, "joint_model")
    assert "materialise it first" in failure(result)


def test_a_release_can_be_named(trained: Trained, instance: dg.DagsterInstance) -> None:
    chosen = {"ops": {"aligned_model": {"config": {"release": trained.release_id}}}}
    trained.built.workspace.set_latest("0123456789abcdef")
    assert run(instance, "aligned_model", run_config=chosen).success
    assert "no release there" in failure(run(instance, "aligned_model"))


@pytest.mark.parametrize(("fail", "says"), [("data", "shard 000.tar is truncated"), ("user", "no preset 'huge'")])
def test_what_the_training_says_is_wrong_fails_the_run_at_once(
    trained: Trained, instance: dg.DagsterInstance, fail: str, says: str
) -> None:
    trained.say(f"fail={fail}")
    result = run(instance)
    assert failure(result) == says
    assert retries(result) == 0
    assert not result.asset_materializations_for_node("joint_model")


@pytest.mark.parametrize("fail", ["nan", "rise"])
def test_blocking_check_stops_a_model_whose_loss_did_not_fall(
    trained: Trained, instance: dg.DagsterInstance, fail: str
) -> None:
    trained.say(f"fail={fail}")
    result = run(instance)
    assert not result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["loss_fell"]
    assert "nan at step 7" in str(failed[0].description) or fail == "rise"
    assert not (trained.output / "joint").exists()


def test_blocking_check_stops_a_model_of_another_release(trained: Trained, instance: dg.DagsterInstance) -> None:
    assert run(instance, "aligned_model").success
    (meta,) = trained.output.glob("align/checkpoints/*/meta.json")
    meta.write_text(json.dumps({"release_id": trained.release_id, "release_digest": "0" * 64}))
    failed = [check for check in run(instance).get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["trained_on_release"]
    assert "digest 000000000000" in str(failed[0].description)


@pytest.mark.parametrize(
    ("fail", "why"), [("killed_once", "ended by SIGKILL"), ("broken_once", "ended by code 1: RuntimeError: no device")]
)
def test_a_process_that_dies_says_why_and_is_started_again(
    trained: Trained, instance: dg.DagsterInstance, fail: str, why: str
) -> None:
    trained.say(f"fail={fail}")
    result = run(instance, "aligned_model")
    assert result.success
    (retry,) = result.filter_events(lambda event: event.is_step_up_for_retry)
    assert why in str(retry.step_retry_data.error)
    assert (trained.output / "align" / "result.json").exists()


def test_several_processes_start_by_torchrun_and_any_rank_can_say_what_is_wrong(
    trained: Trained, instance: dg.DagsterInstance
) -> None:
    trained.say(processes=2)
    result = run(instance, "aligned_model")
    assert result.success
    assert sum("align step 1 of" in line for line in logged(instance, result)) == 1  # rank 0 speaks, and it alone
    trained.say("fail=data", "fail_rank=1", processes=2)
    assert "rank 1: shard 000.tar is truncated" in failure(run(instance, "aligned_model"))


@contextmanager
def in_a_process(trained: Trained, fresh_home: Path) -> Iterator[subprocess.Popen[str]]:
    """A run as the daemon starts it: in a process of its own, on the instance of the workspace."""
    shutil.copytree(fresh_home, Path(trained.built.workspace.root.path) / ".dagster")
    code = textwrap.dedent(f"""
        from mmdata.workspace.layout import Workspace
        from pipelines.definitions import defs
        from pipelines.instance import open_instance
        with open_instance(Workspace({trained.built.corpus.workspace!r})) as instance:
            job = defs.resolve_job_def("train_release")
            job.execute_in_process(instance=instance, raise_on_error=False)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 200) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.1)


def test_dagster_waits_longer_for_a_cancelled_run_than_the_run_for_its_training() -> None:
    settings = yaml.safe_load(settings_template().read_text())
    assert settings["run_monitoring"]["cancel_timeout_seconds"] > STOP_TIMEOUT_S


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_run_that_is_stopped_or_killed_leaves_a_checkpoint_and_no_process(
    trained: Trained, fresh_home: Path, stop: signal.Signals, processes: int
) -> None:
    trained.say("pause=0.1", "steps=6000", processes=processes)
    log = trained.output / "align" / "log.jsonl"
    with in_a_process(trained, fresh_home) as process:
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 3)
        os.kill(process.pid, stop)
        process.communicate(timeout=200)
    wait_for(lambda: list(trained.output.glob("align/checkpoints/step-*/meta.json")))
    steps = len(log.read_text().splitlines())
    time.sleep(0.5)
    assert len(log.read_text().splitlines()) == steps < 6000  # nobody trains on
    if stop is not signal.SIGKILL:
        with open_instance(trained.built.workspace) as instance:
            (last,) = instance.get_runs()
            assert last.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
            said = [entry.user_message for entry in instance.all_logs(last.run_id)]
            assert any("it writes a checkpoint first" in line for line in said)


@pytest.mark.timeout(900)
def test_the_real_training_trains_a_real_release(
    trained: Trained, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    trained.say(*SMALL, preset="tiny")
    result = run(instance, run_config={"ops": {"evaluation": {"config": {"samples": 8, "answers": 2}}}})
    assert result.success, failure(result)
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert len(result.get_asset_check_evaluations()) == 6
    align = result.asset_materializations_for_node("aligned_model")[0].metadata
    assert (Path(str(align["scorer"].value)) / "open_clip_config.json").exists()
    measured = result.asset_materializations_for_node("evaluation")[0].metadata
    assert {"align/image_to_text/recall@1", "joint/perplexity", "instruct/perplexity"} <= set(measured)
    assert len(measured["answers"].value.records) == 4  # two of either model that answers
    assert measured["answers"].value.records[0].data["expected"]
    assert any(line.startswith("joint step 8 of 8: loss") for line in logged(instance, result))
