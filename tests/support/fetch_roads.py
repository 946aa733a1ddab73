"""The three ways by which a URL of a source is fetched: as an image, as a file, from a video site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmdata.config import Clips, Download
from mmdata.download.images import fetch_image
from mmdata.web.failures import FetchError
from mmdata.web.large_files import fetch_file
from mmdata.web.video_sites import fetch_from_site

Fetch = Callable[[str, Download], FetchError | None]


def by_image(url: str, download: Download) -> FetchError | None:
    return fetch_image(url, download).failure


def by_file(folder: Path) -> Fetch:
    return lambda url, download: fetch_file(url, folder / "file", download, Clips(deadline_s=2)).failure


def by_site(folder: Path) -> Fetch:
    return lambda url, download: fetch_from_site(url, folder / "site", download, Clips(deadline_s=30)).failure


@pytest.fixture(params=["image", "file", "site"])
def fetch(request, tmp_path) -> Fetch:
    """Each road by which a URL out of a source is fetched."""
    if request.param == "site":
        pytest.importorskip("yt_dlp")
    return {"image": by_image, "file": by_file(tmp_path), "site": by_site(tmp_path)}[request.param]
