"""Fixtures: the hostile server, settings with short patience, and parts whose rows are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import HandmadePart
from hostile_server import HostileServer

from mmdata.config import Download
from mmdata.download import images
from mmdata.download.guard import Guard, install


@pytest.fixture(scope="session", autouse=True)
def _imports_are_done() -> None:
    images.prepare(Download())


@pytest.fixture
def web() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture
def settings() -> Callable[..., Download]:
    """Download settings that allow loopback, with little patience; they are installed as the process's guard."""

    def make(**changes: Any) -> Download:
        defaults = {"allow_hosts": ["127.0.0.0/8"], "timeout_s": 0.4, "deadline_s": 0.9, "retries": 0, "threads": 8}
        download = Download(**{**defaults, **changes})
        install(Guard(download))
        return download

    return make


@pytest.fixture
def handmade(tmp_path: Path) -> Callable[..., HandmadePart]:
    return lambda *slices, **download: HandmadePart(tmp_path, list(slices), **download)
