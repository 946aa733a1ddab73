"""One small demo for all the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.demo.demo_folder import DemoCorpus, free_port, make_demo

ROWS = 200


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    folder: Path = tmp_path_factory.mktemp("demo")
    return make_demo(folder, ROWS, port=free_port(9711))
