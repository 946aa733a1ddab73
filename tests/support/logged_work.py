"""Work on slices that logs where it runs, and loggers that are as new in each test."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmdata.config import Engine
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.observe import logs
from mmdata.workspace.layout import Workspace

log = logs.logger("mmdata.tests")


@pytest.fixture(autouse=True)
def fresh_loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers belong to the process: a test begins with ours untouched, and its changes are undone afterwards."""
    for variable in (logs.FORMAT_VARIABLE, logs.LEVEL_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    loggers = [logging.getLogger(name) for name in logs.ROOTS]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.level = [], logging.NOTSET
        logger.manager._clear_cache()  # type: ignore[attr-defined] # as setLevel does
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.level = handlers, level
        logger.manager._clear_cache()  # type: ignore[attr-defined] # as setLevel does


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The JSON lines on standard error."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def work(name: str, broken: str = "", killed: str = "") -> SliceResult:
    """A slice's work that says where it runs."""
    log.info("at work", pid=os.getpid())
    if name == broken:
        raise OSError("no space")
    if name == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    return SliceResult(pa.table({"uid": [name * 8]}), counts={"rows": 1, "usable": 1}, numbers={"seconds": 0.5})


def run(folder: Path, workers: int, **how: str) -> None:
    """A stage over three slices; `how` goes to `work`."""
    run_part_stage(
        Workspace(str(folder)),
        "web-000000",
        "media",
        settings="s",
        inputs={"0000": "a", "0001": "b", "0002": "c"},
        upstream="u",
        work=partial(work, **how),
        engine=Engine(workers=workers),
    )
