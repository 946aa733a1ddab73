"""A web server that counts, and corpora built from it, on a disk and on S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.buckets import s3_bucket
from tests.support.published import Published, Web, serving


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture
def corpus_on(tmp_path: Path, web: Web) -> Callable[..., Published]:
    return lambda root=None, **sections: Published(tmp_path, root or str(tmp_path / "workspace"), web, **sections)


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "disk":
        yield str(tmp_path / "workspace")
        return
    with s3_bucket() as bucket:
        yield bucket
