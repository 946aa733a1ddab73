"""Fixtures of the command line's tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.standin_stages import Small, make_small

Mmdata = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mmdata() -> Mmdata:
    """Runs the real command in a process of its own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("mmdata")), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A corpus of two sound parts, with stand-in stages in this process."""
    return make_small(tmp_path, monkeypatch)
