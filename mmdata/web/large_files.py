"""Large files to disk, under the same guard as pictures: resumed by range, hashed whole, never in memory."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.config import Clips, Download
from mmdata.web.failures import FetchError, as_fetch_error
from mmdata.web.limits import fetching
from mmdata.web.retries import backoff_s

READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file on disk, or why there is none.

    Args:
        sha256, size_bytes, mime, etag: of the whole body; None where there is none.
    """

    failure: FetchError | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    mime: str | None = None
    etag: str | None = None

    @property
    def was_tried(self) -> bool:
        """Whether the URL itself was contacted."""
        return self.failure is None or self.failure.error != "host_down"


def fetch_file(url: str, target: Path, download: Download, clips: Clips) -> FetchedFile:
    """Fetch a URL to a file. Never raises for what a URL or its server does.

    A connection that breaks is taken up where it broke, if the server knows ranges and the file is still the same;
    else the file is fetched from its beginning. All tries share one deadline.

    Args:
        target: written; on a failure what came so far may lie there.
    """
    limits = download.model_copy(update={"max_bytes": clips.max_bytes, "deadline_s": clips.deadline_s})
    deadline = time.monotonic() + clips.deadline_s
    body = _Body(url, target)
    attempt = 1
    while True:
        had = body.length
        try:
            with fetching(limits, deadline) as fetch:
                try:
                    body.go_on(limits)
                except FetchError:
                    raise
                except Exception as error:
                    raise (fetch.failure or as_fetch_error(error)) from error
            break
        except FetchError as failure:
            if body.length > had:
                attempt = 1  # it moves: a large file may break often
            wait_s = max(backoff_s(url, attempt), failure.retry_after_s or 0.0)
            late = time.monotonic() + wait_s >= deadline
            if not failure.may_pass or attempt > download.retries or late:
                return FetchedFile(failure, etag=body.etag)
            time.sleep(wait_s)
            attempt += 1
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FetchedFile(None, digest, body.length, body.mime, body.etag)


class _Body:
    """What of a body has come, and what a server must still say of it for more of it to be the same file."""

    def __init__(self, url: str, target: Path) -> None:
        self._url, self._target = url, target
        self.length = 0
        self.mime: str | None = None
        self.etag: str | None = None
        self._validator: str | None = None
        target.write_bytes(b"")

    def go_on(self, limits: Download) -> None:
        """Fetch what is left. Raises what urllib raises, or FetchError."""
        request = urllib.request.Request(self._url)
        if self.length and self._validator:
            request.add_header("Range", f"bytes={self.length}-")
            request.add_header("If-Range", self._validator)
        try:
            response = urllib.request.urlopen(request, timeout=limits.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not self.length:
                raise
            self._begin_again()  # shorter than what we have: another file
            response = urllib.request.urlopen(urllib.request.Request(self._url), timeout=limits.timeout_s)
        with response:
            self._take(response, limits.max_bytes)

    def _take(self, response: Any, most: int) -> None:
        headers = response.headers
        if response.status != 206 or not headers.get("Content-Range", "").startswith(f"bytes {self.length}-"):
            if response.status == 206:
                raise FetchError("bad_response", f"Content-Range {headers.get('Content-Range')!r} was not asked for")
            self._begin_again()
        self.mime = headers.get_content_type()
        self.etag = headers.get("ETag")
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        self._validator = strong or headers.get("Last-Modified")
        promised = headers.get("Content-Length", "")
        came = 0
        with self._target.open("ab") as file:
            while data := response.read(READ_BYTES):
                came += len(data)
                if self.length + len(data) > most:
                    raise FetchError("too_large", f"the file is longer than {most} bytes")
                file.write(data)
                self.length += len(data)
        if promised.isdigit() and came < int(promised):
            raise FetchError("truncated", f"{came} of {promised} bytes came", may_pass=True)
        if not self.length:
            raise FetchError("empty", "the body has no bytes")

    def _begin_again(self) -> None:
        self._target.write_bytes(b"")
        self.length = 0
