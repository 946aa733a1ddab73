"""Fetches the video of a page of a video site with yt-dlp, an optional package.

yt-dlp gets one request handler, ours: pages, scripts, playlists and media come over guarded connections, with one
deadline and one limit on their bytes. docs/video.md says what that does not cover.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

from mmdata.config import Clips, Download
from mmdata.display import shown
from mmdata.failure_classes import SITE_BLOCKED
from mmdata.fingerprint import file_sha256
from mmdata.urls import host_name
from mmdata.web.failures import FetchError
from mmdata.web.guard import Guard, GuardedOpener
from mmdata.web.large_files import FetchedFile, large_file_limits
from mmdata.web.limits import Fetch, fetching
from mmdata.web.site_errors import site_error

VIDEO_SITES = frozenset(
    {"youtube.com", "youtu.be", "vimeo.com", "dailymotion.com", "bilibili.com", "twitch.tv", "tiktok.com"}
)
"""Registrable domains whose pages show a video; any other URL is that of a file."""

YT_DLP_FORMAT = "b[height<=480]/b"  # a single file with picture and sound, because no other program may merge two
_log = logging.getLogger(__name__)


class _DebugLogger:
    """Logs the messages of yt-dlp at level debug, escaped and without credentials, because they quote pages."""

    def debug(self, text: str) -> None:
        _log.debug("%s", shown(text))

    info = warning = error = debug


def is_site(url: str) -> bool:
    """Whether a URL is a page of a video site."""
    return site_of(url) is not None


def site_of(url: str) -> str | None:
    """The video site that a URL is a page of, such as `youtube.com`; None: it is the URL of a file."""
    host = host_name(url)
    site = next((site for site in VIDEO_SITES if host == site or host.endswith(f".{site}")), None)
    return "youtube.com" if site == "youtu.be" else site


def fetch_from_site(url: str, target: Path, download: Download, clips: Clips) -> FetchedFile:
    """Fetch the video of a page to a file. Never raises for what a URL or its server does."""
    try:
        import yt_dlp
    except ImportError:
        detail = (
            "the URL is a page of a video site, and yt-dlp is not installed. Remedy: pip install 'mmdata[sites]', or "
            "set fetch_from to a mirror of the files"
        )
        return FetchedFile(FetchError("site", detail))
    limits = large_file_limits(download, clips)
    target.unlink(missing_ok=True)
    try:
        guard = Guard(limits)
        guard.check_url(url)
        with fetching(limits) as fetch:
            try:
                with _client(yt_dlp, _options(target, limits, clips), guard) as client:
                    info: dict[str, Any] = client.extract_info(url, download=True) or {}
            except FetchError:
                raise
            except Exception as error:  # noqa: BLE001 - yt-dlp's extractors raise anything on a page that has changed
                raise _failure_of(fetch, error) from None
        if not target.exists() or not target.stat().st_size:
            raise FetchError(
                "site_failed", "yt-dlp wrote no file: it is too large, or the page has no format with picture and sound"
            )
    except FetchError as failure:
        return FetchedFile(failure)
    mime = mimetypes.guess_type(f"x.{info.get('ext', '')}")[0]
    return FetchedFile(None, file_sha256(target), target.stat().st_size, mime)


def _client(yt_dlp: Any, options: dict[str, Any], guard: Guard) -> Any:
    """A YoutubeDL that sends all its requests through our opener."""
    from yt_dlp.networking._urllib import UrllibRH

    class GuardedRH(UrllibRH):
        _SUPPORTED_URL_SCHEMES = ("http", "https")
        _SUPPORTED_PROXY_SCHEMES = ()

        def _create_instance(self, proxies: Any, cookiejar: Any, legacy_ssl_support: Any = None) -> GuardedOpener:
            opener = GuardedOpener(guard, urllib.request.HTTPCookieProcessor(cookiejar))
            opener.addheaders = []
            return opener

    class Client(yt_dlp.YoutubeDL):
        def process_ie_result(self, ie_result: Any, *args: Any, **options: Any) -> Any:
            if ie_result.get("_type", "video") not in ("video", "url", "url_transparent"):
                detail = (
                    "the page is a playlist, and a sample is one video: yt-dlp would write all of them to one file. "
                    "Remedy: list the page of each video as a row of its own"
                )
                raise FetchError("playlist", detail)
            return super().process_ie_result(ie_result, *args, **options)

        def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
            return super().build_request_director([GuardedRH])

    return Client(options)


def _options(target: Path, limits: Download, clips: Clips) -> dict[str, Any]:
    """The options of YoutubeDL: one file to `target`, within the limits, by no other program."""
    deadline = time.monotonic() + clips.deadline_s

    def on_progress(progress: dict[str, Any]) -> None:
        if time.monotonic() > deadline:
            raise FetchError("deadline", "the fetch took longer than clips.deadline_s", may_pass=True)
        if (progress.get("downloaded_bytes") or 0) > clips.max_bytes:
            raise FetchError("too_large", f"the file is longer than {clips.max_bytes} bytes")

    def on_info(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
        del incomplete
        if info.get("is_live"):
            raise FetchError("site_upcoming", "a live stream that has not ended", may_pass=True)
        if (info.get("duration") or 0) > clips.max_duration_s:
            raise FetchError("too_long", f"{info['duration']:.0f} s is over clips.max_duration_s")
        return None

    return {
        "format": YT_DLP_FORMAT,
        "outtmpl": {"default": str(target).replace("%", "%%")},
        "overwrites": True,
        "nopart": True,
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _DebugLogger(),
        "cachedir": False,
        "socket_timeout": limits.timeout_s,
        "retries": limits.retries,
        "proxy": "",
        "geo_bypass": False,
        # no other program fetches or changes the file
        "external_downloader": {"default": "native"},
        "ffmpeg_location": os.devnull,
        "fixup": "never",
        "http_headers": {"User-Agent": limits.agent},
        "progress_hooks": [on_progress],
        "match_filter": on_info,
    }


def _failure_of(fetch: Fetch, error: Exception) -> FetchError:
    """Why a fetch ended: the guard's own failure if there is one, else what the text of yt-dlp means."""
    guarded = fetch.failure
    if guarded is not None and not guarded.error.startswith("http_"):
        return guarded
    failure = site_error(str(error).strip() or type(error).__name__)
    if guarded is not None and failure.error == SITE_BLOCKED:
        failure.retry_after_s = guarded.retry_after_s
    return failure
