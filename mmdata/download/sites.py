"""Video sites, whose pages are no files: by yt-dlp, an optional package.

yt-dlp opens connections of its own. Before it does, the page's URL passes the same guard as any other; what a site
then refers it to is up to yt-dlp. docs/video.md says what follows from that.
"""

from __future__ import annotations

import hashlib
import mimetypes
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmdata.config import Clips, Download
from mmdata.download.addresses import AllowList, allowed_addresses, resolve_within, system_resolver
from mmdata.download.failures import FetchError
from mmdata.download.files import FetchedFile
from mmdata.download.guard import Guard

SITES = frozenset(
    {"youtube.com", "youtu.be", "vimeo.com", "dailymotion.com", "bilibili.com", "twitch.tv", "tiktok.com"}
)
"""Registrable domains whose pages are videos; any other URL is a file's own."""

FORMAT = "b[height<=480]/b"  # one file with picture and sound, so that nothing has to be put together
MAY_PASS = ("timed out", "temporar", "HTTP Error 429", "HTTP Error 5", "Connection", "reset by peer", "IncompleteRead")


def is_site(url: str) -> bool:
    """Whether a URL is a page of a video site."""
    host = (urlsplit(url).hostname or "").lower()
    return any(host == site or host.endswith(f".{site}") for site in SITES)


def fetch_from_site(url: str, target: Path, download: Download, clips: Clips) -> FetchedFile:
    """Fetch the video of a page to a file. Never raises for what a URL or its server does."""
    try:
        _check(url, download)
        return _fetch(url, target, download, clips)
    except FetchError as failure:
        return FetchedFile(failure)


def _check(url: str, download: Download) -> None:
    Guard(download).check_url(url)
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)

    def look_up(name: str, number: int) -> list[str]:
        return resolve_within(system_resolver, name, number, download.timeout_s)

    allowed_addresses(parts.hostname or "", port, AllowList(download.allow_hosts), look_up)


def _fetch(url: str, target: Path, download: Download, clips: Clips) -> FetchedFile:
    try:
        import yt_dlp
    except ImportError:
        raise FetchError(
            "site", "a page of a video site, and yt-dlp is not installed. Remedy: pip install 'mmdata[sites]', or "
            "fetch_from: a mirror"
        ) from None  # fmt: skip
    deadline = time.monotonic() + clips.deadline_s

    def on_progress(told: dict[str, Any]) -> None:
        if time.monotonic() > deadline:
            raise FetchError("deadline", "the fetch took longer than clips.deadline_s", may_pass=True)
        if (told.get("downloaded_bytes") or 0) > clips.max_bytes:
            raise FetchError("too_large", f"the file is longer than {clips.max_bytes} bytes")

    def on_info(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
        del incomplete
        if (info.get("duration") or 0) > clips.max_duration_s:
            raise FetchError("too_long", f"{info['duration']:.0f} s is over clips.max_duration_s")
        return None

    options: dict[str, Any] = {
        "format": FORMAT,
        "outtmpl": {"default": str(target)},
        "overwrites": True,
        "nopart": True,
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "cachedir": False,
        "socket_timeout": download.timeout_s,
        "retries": download.retries,
        "proxy": "",
        "http_headers": {"User-Agent": download.user_agent},
        "progress_hooks": [on_progress],
        "match_filter": on_info,
        "max_filesize": clips.max_bytes,
    }
    try:
        with yt_dlp.YoutubeDL(options) as client:
            info: dict[str, Any] = client.extract_info(url, download=True) or {}
    except FetchError:
        raise
    except (yt_dlp.utils.YoutubeDLError, OSError, ValueError) as error:
        text = str(error).strip() or type(error).__name__
        raise FetchError("site_failed", text, may_pass=any(sign in text for sign in MAY_PASS)) from None
    if not target.exists() or not target.stat().st_size:
        raise FetchError("site_failed", "yt-dlp wrote no file (too large, or no format of that kind)")
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    mime = mimetypes.guess_type(f"x.{info.get('ext', '')}")[0]
    return FetchedFile(None, digest, target.stat().st_size, mime)
