"""Fetches large files to disk, under the same guard as pictures: resumed by range, hashed, never whole in memory."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.config import Clips, Download
from mmdata.fingerprint import file_sha256
from mmdata.web.failures import FetchError, as_fetch_error
from mmdata.web.limits import fetching
from mmdata.web.retries import wait_before_retry_s

READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A fetched file, or the failure that ended its fetch.

    Args:
        sha256, size_bytes, mime, etag: of the whole body; None if they are not known.
    """

    failure: FetchError | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    mime: str | None = None
    etag: str | None = None

    @property
    def status(self) -> str:
        """The status of the media table."""
        return "success" if self.failure is None else self.failure.status


def large_file_limits(download: Download, clips: Clips) -> Download:
    """The download settings with the size limit and the deadline of videos and sound."""
    return download.model_copy(update={"max_bytes": clips.max_bytes, "deadline_s": clips.deadline_s})


def fetch_file(url: str, target: Path, download: Download, clips: Clips) -> FetchedFile:
    """Fetch a URL to a file. Never raises for what a URL or its server does.

    After a broken connection the fetch continues at the byte where it broke, if the server supports ranges and the
    file has not changed; otherwise it begins again. All tries share one deadline.

    Args:
        target: is written. After a failure it may hold the bytes that arrived.
    """
    limits = large_file_limits(download, clips)
    deadline = time.monotonic() + limits.deadline_s
    body = _Body(url, target)
    attempt = 1
    while True:
        length_before = body.length
        try:
            with fetching(limits, deadline) as fetch:
                try:
                    body.fetch_rest(limits)
                except FetchError:
                    raise
                except Exception as error:
                    raise (fetch.failure or as_fetch_error(error)) from error
            return FetchedFile(None, file_sha256(target), body.length, body.mime, body.etag)
        except FetchError as failure:
            if body.length > length_before:
                attempt = 1  # a large file may break often, as long as each try makes progress
            wait_s = wait_before_retry_s(url, failure, attempt, download.retries, deadline)
            if wait_s is None:
                return FetchedFile(failure, etag=body.etag)
            time.sleep(wait_s)
            attempt += 1


class _Body:
    """The part of a body that has arrived, and the validator that the rest must match to belong to the same file."""

    def __init__(self, url: str, target: Path) -> None:
        self._url, self._target = url, target
        self.length = 0
        self.mime: str | None = None
        self.etag: str | None = None
        self._validator: str | None = None
        target.write_bytes(b"")

    def fetch_rest(self, limits: Download) -> None:
        """Fetch what is missing. Raises FetchError, or what urllib raises."""
        try:
            request = urllib.request.Request(self._url)
        except ValueError as error:
            raise FetchError("bad_url", str(error)) from None
        if self.length and self._validator:
            request.add_header("Range", f"bytes={self.length}-")
            request.add_header("If-Range", self._validator)
        try:
            response = urllib.request.urlopen(request, timeout=limits.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not self.length:
                raise
            self._restart()  # the file is now shorter than what we have, so it is another file
            response = urllib.request.urlopen(urllib.request.Request(self._url), timeout=limits.timeout_s)
        with response:
            self._append(response, limits.max_bytes)

    def _append(self, response: Any, max_bytes: int) -> None:
        headers = response.headers
        if response.status != 206 or not headers.get("Content-Range", "").startswith(f"bytes {self.length}-"):
            if response.status == 206:
                raise FetchError("bad_response", f"Content-Range {headers.get('Content-Range')!r} was not asked for")
            self._restart()
        self.mime = headers.get_content_type()
        self.etag = headers.get("ETag")
        # RFC 9110: If-Range takes a strong ETag or a date, never a weak ETag
        strong_etag = self.etag if self.etag and not self.etag.startswith("W/") else None
        self._validator = strong_etag or headers.get("Last-Modified")
        content_length = headers.get("Content-Length", "")
        received = 0
        with self._target.open("ab") as file:
            while data := response.read(READ_BYTES):
                received += len(data)
                if self.length + len(data) > max_bytes:
                    raise FetchError("too_large", f"the file is longer than {max_bytes} bytes")
                file.write(data)
                self.length += len(data)
        if content_length.isdigit() and received < int(content_length):
            raise FetchError("truncated", f"only {received} of {content_length} bytes arrived", may_pass=True)
        if not self.length:
            raise FetchError("empty", "the body has no bytes")

    def _restart(self) -> None:
        self._target.write_bytes(b"")
        self.length = 0
