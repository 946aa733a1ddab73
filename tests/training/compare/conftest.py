"""A workspace of pairs, sixty percent of them with wrong captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compared import Compared, make_compared


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return make_compared(tmp_path_factory.mktemp("compared"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
