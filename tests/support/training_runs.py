"""A workspace with a release, and runs of the training job on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from pipelines.definitions import defs
from tests.support.workspaces import Built, build, release

STANDINS = Path(__file__).parents[1] / "standins"


@dataclass
class TrainingCorpus:
    """A workspace with a release, and the corpus.yaml that trains on it."""

    built: Built
    config: Path
    release_id: str

    @property
    def output(self) -> Path:
        return Path(self.built.workspace.root.path) / "training" / self.release_id / "run"

    def set_training(self, *overrides: str, **train: object) -> None:
        corpus = self.built.corpus.model_dump(mode="json", exclude_none=True)
        corpus["train"] = {"preset": None, "set": list(overrides), **train}
        self.config.write_text(yaml.safe_dump(corpus))


def make_training_corpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingCorpus:
    """Make a release, and have its training run with the stand-ins of tests/standins."""
    built = build(str(folder / "workspace"), {"web-000000": range(80)})
    corpus = TrainingCorpus(built, folder / "corpus.yaml", release(built))
    corpus.set_training()
    monkeypatch.setenv("MMDATA_CONFIG", str(corpus.config))
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(folder)  # the checkout itself would come before PYTHONPATH
    return corpus


def run_training(instance: dg.DagsterInstance, *assets: str, **options: object) -> dg.ExecuteInProcessResult:
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


def logged(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id)]
