"""Video sites, whose pages are no files: by yt-dlp, an optional package, whose requests all go through our guard.

yt-dlp is given one handler of requests, ours: pages, scripts, playlists and media come over guarded connections, with
one deadline and one cap on their bytes. docs/video.md says what that does not cover.
"""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

from mmdata.config import Clips, Download
from mmdata.display import shown
from mmdata.urls import host_name
from mmdata.web.failures import FetchError
from mmdata.web.guard import Guard, GuardedOpener
from mmdata.web.large_files import FetchedFile
from mmdata.web.limits import Fetch, fetching

SITES = frozenset(
    {"youtube.com", "youtu.be", "vimeo.com", "dailymotion.com", "bilibili.com", "twitch.tv", "tiktok.com"}
)
"""Registrable domains whose pages are videos; any other URL is a file's own."""

FORMAT = "b[height<=480]/b"  # one file with picture and sound, so that nothing has to be put together
MAY_PASS = ("timed out", "temporar", "HTTP Error 429", "HTTP Error 5", "Connection", "reset by peer", "IncompleteRead")
_log = logging.getLogger(__name__)


class _Said:
    """What yt-dlp says goes to the debugging log: its errors are reasons of rows, and hold words of pages."""

    def debug(self, text: str) -> None:
        _log.debug("%s", shown(text))

    info = warning = error = debug


def is_site(url: str) -> bool:
    """Whether a URL is a page of a video site."""
    host = host_name(url)
    return any(host == site or host.endswith(f".{site}") for site in SITES)


def fetch_from_site(url: str, target: Path, download: Download, clips: Clips) -> FetchedFile:
    """Fetch the video of a page to a file. Never raises for what a URL or its server does."""
    try:
        import yt_dlp
    except ImportError:
        return FetchedFile(
            FetchError(
                "site",
                "a page of a video site, and yt-dlp is not installed. Remedy: pip install 'mmdata[sites]', or "
                "fetch_from: a mirror of the files",
            )
        )
    limits = download.model_copy(update={"max_bytes": clips.max_bytes, "deadline_s": clips.deadline_s})
    target.unlink(missing_ok=True)
    try:
        Guard(limits).check_url(url)
        with fetching(limits) as fetch:
            try:
                with _client(yt_dlp, _options(target, limits, clips), Guard(limits)) as client:
                    info: dict[str, Any] = client.extract_info(url, download=True) or {}
            except FetchError:
                raise
            except Exception as error:  # noqa: BLE001 - a thousand extractors raise what they like on a changed page
                raise _reason(fetch, error) from None
        if not target.exists() or not target.stat().st_size:
            raise FetchError("site_failed", "yt-dlp wrote no file (too large, or no format of that kind)")
    except FetchError as failure:
        return FetchedFile(failure)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    mime = mimetypes.guess_type(f"x.{info.get('ext', '')}")[0]
    return FetchedFile(None, digest, target.stat().st_size, mime)


def _client(yt_dlp: Any, options: dict[str, Any], guard: Guard) -> Any:
    """A YoutubeDL that has no other way into the network than our opener."""
    from yt_dlp.networking._urllib import UrllibRH

    class GuardedRH(UrllibRH):
        _SUPPORTED_URL_SCHEMES = ("http", "https")
        _SUPPORTED_PROXY_SCHEMES = ()

        def _create_instance(self, proxies: Any, cookiejar: Any, legacy_ssl_support: Any = None) -> GuardedOpener:
            opener = GuardedOpener(guard)
            opener.add_handler(urllib.request.HTTPCookieProcessor(cookiejar))
            opener.addheaders = []
            return opener

    class Client(yt_dlp.YoutubeDL):
        def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
            return super().build_request_director([GuardedRH])

    return Client(options)


def _options(target: Path, limits: Download, clips: Clips) -> dict[str, Any]:
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

    return {
        "format": FORMAT,
        "outtmpl": {"default": str(target).replace("%", "%%")},
        "overwrites": True,
        "nopart": True,
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _Said(),
        "cachedir": False,
        "socket_timeout": limits.timeout_s,
        "retries": limits.retries,
        "proxy": "",
        "geo_bypass": False,
        # no other program fetches anything, and none changes the file
        "external_downloader": {"default": "native"},
        "ffmpeg_location": os.devnull,
        "fixup": "never",
        "http_headers": {"User-Agent": limits.user_agent},
        "progress_hooks": [on_progress],
        "match_filter": on_info,
    }


def _reason(fetch: Fetch, error: Exception) -> FetchError:
    """What ended a fetch: the guard's own verdict where there is one, else what yt-dlp says."""
    if fetch.failure is not None and not fetch.failure.error.startswith("http_"):
        return fetch.failure
    text = str(error).strip() or type(error).__name__
    return FetchError("site_failed", text, may_pass=any(sign in text for sign in MAY_PASS))
