"""Fixtures of the command line's tests."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mmdata.cli import main
from tests.support.standin_stages import Small, make_small
from tests.support.workspaces import Built, build, release

Mmdata = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mmdata(monkeypatch: pytest.MonkeyPatch) -> Mmdata:
    """Runs a command in this process, from its arguments to its exit code."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["mmdata", *map(str, arguments)])
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            pytest.raises(SystemExit) as ended,
        ):
            main.run()
        return subprocess.CompletedProcess(sys.argv, ended.value.code, stdout.getvalue(), stderr.getvalue())  # type: ignore[arg-type]

    return run


@pytest.fixture
def mmdata_process() -> Mmdata:
    """Runs the installed command in a process of its own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("mmdata")), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A corpus of two sound parts, with stand-in stages in this process."""
    return make_small(tmp_path, monkeypatch)


@dataclass(frozen=True)
class Released:
    """A release of thirty samples; the tests leave it as it is."""

    built: Built
    id: str
    config: Path

    @property
    def folder(self) -> Path:
        return Path(self.built.workspace.release_dir(self.id).path)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    built = build(str(folder / "workspace"), {"web-000000": range(30)})
    config = folder / "corpus.yaml"
    config.write_text(yaml.safe_dump(built.corpus.model_dump(mode="json", exclude_none=True)))
    return Released(built, release(built), config)
