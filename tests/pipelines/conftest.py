"""Fixtures of the graph's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mmdata.workspace.layout import Workspace
from pipelines.home import dagster_home
from pipelines.instance import open_instance
from tests.support.standin_stages import Small, make_small
from tests.support.training_runs import TrainingCorpus, make_training_corpus


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dagster home with its databases made: that takes seconds, copying them does not."""
    workspace = Workspace(str(tmp_path_factory.mktemp("fresh")))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        open_instance(workspace).dispose()
        return dagster_home(workspace)


@pytest.fixture
def small(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A corpus of two sound parts, with stand-in stages."""
    shutil.copytree(fresh_home, tmp_path / "workspace" / ".dagster")
    return make_small(tmp_path, monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingCorpus:
    """A corpus with a release, on which the stand-ins train."""
    return make_training_corpus(tmp_path, monkeypatch)
