"""A workspace on the disk, and one on S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.workspace.layout import Workspace
from tests.support.buckets import s3_bucket


@pytest.fixture(params=["disk", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    if request.param == "disk":
        yield Workspace(str(tmp_path))
        return
    with s3_bucket() as url:
        yield Workspace(url)
