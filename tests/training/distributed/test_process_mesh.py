"""Processes are arranged, and their rows gathered."""

from __future__ import annotations

import pytest

from mmdata.errors import UserError
from tests.support.tiny_run import settings
from training.distributed.process_mesh import join_processes


def test_processes_that_do_not_divide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="does not divide 3"):
        join_processes(settings(parallel={"tp": 2}).parallel, "cpu")
