"""The processes that train: how they are followed, stopped, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import dagster as dg
import pytest
import yaml

from pipelines.home import settings_template
from pipelines.instance import open_instance
from pipelines.launch import STOP_TIMEOUT_S
from pipelines.watcher import watched_by
from tests.support.training_runs import TrainingCorpus, failure, logged, run_training


@contextmanager
def in_a_process(corpus: TrainingCorpus, fresh_home: Path) -> Iterator[subprocess.Popen[str]]:
    """A run as the daemon starts it: in a process of its own, on the instance of the workspace."""
    shutil.copytree(fresh_home, Path(corpus.built.workspace.root.path) / ".dagster")
    code = textwrap.dedent(f"""
        from mmdata.workspace.layout import Workspace
        from pipelines.definitions import defs
        from pipelines.instance import open_instance
        with open_instance(Workspace({corpus.built.corpus.workspace!r})) as instance:
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


def test_a_watcher_in_the_same_process_sees_how_far_a_stage_is(
    corpus: TrainingCorpus, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_of = SimpleNamespace(align=SimpleNamespace(steps=20))  # the stand-in is in the child
    monkeypatch.setattr(
        "training.config_file.load_train_config", lambda *_: steps_of
    )  # the stand-in's are in the child
    corpus.set_training("pause=0.2")
    watcher = Mock()
    with watched_by(watcher):
        assert run_training(instance, "aligned_model").success
    stage, step, steps = watcher.progress.call_args.args
    assert (stage, steps) == ("align", 20)
    assert 0 < step <= 20
    assert watcher.finished.call_args.args[0].counts["steps"] == 20


@pytest.mark.parametrize(("fail", "says"), [("data", "shard 000.tar is truncated"), ("user", "no preset 'huge'")])
def test_what_the_training_says_is_wrong_fails_the_run_at_once(
    corpus: TrainingCorpus, instance: dg.DagsterInstance, fail: str, says: str
) -> None:
    corpus.set_training(f"fail={fail}")
    result = run_training(instance)
    assert failure(result) == says
    assert not result.filter_events(lambda event: event.is_step_up_for_retry)
    assert not result.asset_materializations_for_node("joint_model")


@pytest.mark.parametrize(
    ("fail", "why"), [("killed_once", "ended by SIGKILL"), ("broken_once", "ended by code 1: RuntimeError: no device")]
)
def test_a_process_that_dies_says_why_and_is_started_again(
    corpus: TrainingCorpus, instance: dg.DagsterInstance, fail: str, why: str
) -> None:
    corpus.set_training(f"fail={fail}")
    result = run_training(instance, "aligned_model")
    assert result.success
    (retry,) = result.filter_events(lambda event: event.is_step_up_for_retry)
    assert why in str(retry.step_retry_data.error)
    assert (corpus.output / "align" / "result.json").exists()


def test_several_processes_start_by_torchrun_and_any_rank_can_say_what_is_wrong(
    corpus: TrainingCorpus, instance: dg.DagsterInstance
) -> None:
    corpus.set_training(processes=2)
    result = run_training(instance, "aligned_model")
    assert result.success
    assert sum("align step 1 of" in line for line in logged(instance, result)) == 1  # rank 0 speaks, and it alone
    corpus.set_training("fail=data", "fail_rank=1", processes=2)
    assert "rank 1: shard 000.tar is truncated" in failure(run_training(instance, "aligned_model"))


def test_dagster_waits_longer_for_a_cancelled_run_than_the_run_for_its_training() -> None:
    settings = yaml.safe_load(settings_template().read_text())
    assert settings["run_monitoring"]["cancel_timeout_seconds"] > STOP_TIMEOUT_S


@pytest.mark.parametrize(
    ("stop", "processes"), [(signal.SIGINT, 1), (signal.SIGKILL, 2)], ids=["one stopped", "two killed"]
)
def test_a_run_that_is_stopped_or_killed_leaves_a_checkpoint_and_no_process(
    corpus: TrainingCorpus, fresh_home: Path, stop: signal.Signals, processes: int
) -> None:
    corpus.set_training("pause=0.1", "steps=6000", processes=processes)
    log = corpus.output / "align" / "log.jsonl"
    with in_a_process(corpus, fresh_home) as process:
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 3)
        os.kill(process.pid, stop)
        process.communicate(timeout=200)
    wait_for(lambda: list(corpus.output.glob("align/checkpoints/step-*/meta.json")))
    steps = len(log.read_text().splitlines())
    time.sleep(0.5)
    assert len(log.read_text().splitlines()) == steps < 6000  # nobody trains on
    if stop is not signal.SIGKILL:
        with open_instance(corpus.built.workspace) as instance:
            (last,) = instance.get_runs()
            assert last.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
            said = [entry.user_message for entry in instance.all_logs(last.run_id)]
            assert any("it writes a checkpoint first" in line for line in said)
