"""One small demo for all the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.demo.demo_folder import DemoCorpus, free_port, make_demo
from mmdata.demo.web_server import DemoServer
from tests.support.demo_site import BODY

ROWS = 200


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    folder: Path = tmp_path_factory.mktemp("demo")
    return make_demo(folder, ROWS, port=free_port(9711))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[DemoServer]:
    site = tmp_path / "site"
    (site / "pictures").mkdir(parents=True)
    (site / "pictures/a.png").write_bytes(BODY)
    (site / "pictures/b c.jpg").write_bytes(b"jpeg")
    (tmp_path / "secret.txt").write_text("secret")
    with DemoServer(site, byte_s=0.01) as server:
        yield server
