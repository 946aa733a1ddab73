"""Fetches large files to disk, under the same guard as pictures: resumed by range, hashed, never whole in memory."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmdata.config import Clips, Download
from mmdata.fingerprint import file_sha256
from mmdata.web.encodings import UnfinishedEncoding, encodings_of
from mmdata.web.failures import FetchError, as_fetch_error
from mmdata.web.header_values import MAX_VALUE_CHARS, content_range, validator
from mmdata.web.limits import fetching
from mmdata.web.retries import wait_before_retry_s

READ_BYTES = 1 << 18
FRAMING_SLACK_BYTES = 4096
"""By so many bytes a Content-Length may be too large, if the file ends at the same byte each time."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A fetched file, or the failure that ended its fetch.

    Args:
        sha256, size_bytes, mime, etag: of the whole body; None if they are not known.
        md5: the same; of large files only if a row expects it.
    """

    failure: FetchError | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    mime: str | None = None
    etag: str | None = None
    md5: str | None = None

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
    file has not changed; otherwise it begins again. All tries share one deadline. A file that ends at the same byte
    twice, short of its length by at most FRAMING_SLACK_BYTES or without a last chunk, is whole: its framing is wrong.

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
            return body.as_file()
        except FetchError as failure:
            if body.ended_alike:
                return body.as_file()
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
        self._short_end: int | None = None  # where the latest try ended before its framing did
        self.ended_alike = False
        target.write_bytes(b"")

    def as_file(self) -> FetchedFile:
        """The file, which is whole."""
        return FetchedFile(None, file_sha256(self._target), self.length, self.mime, self.etag)

    def fetch_rest(self, limits: Download) -> None:
        """Fetch what is missing. Raises FetchError, or what urllib raises."""
        try:
            request = urllib.request.Request(self._url, headers={"Accept": "*/*"})
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
            served = content_range(error.headers.get("Content-Range"))
            if served is not None and served.total == self.length:
                return  # nothing follows what we have
            self._restart()  # the file is now shorter than what we have, so it is another file
            request.headers.clear()
            response = urllib.request.urlopen(request, timeout=limits.timeout_s)
        with response:
            self._append(response, limits.max_bytes)

    def _append(self, response: Any, max_bytes: int) -> None:
        headers = response.headers
        part = content_range(headers.get("Content-Range")) if response.status == 206 else None
        if part is None or part.start != self.length:
            if response.status == 206:
                raise FetchError("bad_response", f"Content-Range {headers.get('Content-Range')!r} was not asked for")
            self._restart()
        self.mime = headers.get_content_type()[:MAX_VALUE_CHARS]
        self.etag = validator(headers.get("ETag"))
        # RFC 9110: If-Range takes a strong ETag or a date, never a weak ETag. A range is one of the encoded bytes.
        strong_etag = self.etag if self.etag and not self.etag.startswith("W/") else None
        is_encoded = bool(encodings_of(headers.get_all("Content-Encoding", [])))
        self._validator = None if is_encoded else strong_etag or validator(headers.get("Last-Modified"))
        with self._target.open("ab") as file:
            try:
                while data := response.read(READ_BYTES):
                    self._write(file, data, max_bytes)
            except http.client.IncompleteRead as error:
                self._write(file, error.partial, max_bytes)
                if not isinstance(error, UnfinishedEncoding):
                    self._note_short_end(error.expected)
                raise
        if part is not None and part.total is not None and self.length < part.total:
            raise FetchError("truncated", f"only {self.length} of {part.total} bytes arrived", may_pass=True)
        if not self.length:
            raise FetchError("empty", "the body has no bytes")

    def _write(self, file: IO[bytes], data: bytes, max_bytes: int) -> None:
        if self.length + len(data) > max_bytes:
            raise FetchError("too_large", f"the file is longer than {max_bytes} bytes")
        file.write(data)
        self.length += len(data)

    def _note_short_end(self, missing: int | None) -> None:
        is_slight = missing is None or missing <= FRAMING_SLACK_BYTES
        self.ended_alike = is_slight and self.length > 0 and self.length == self._short_end
        self._short_end = self.length

    def _restart(self) -> None:
        self._target.write_bytes(b"")
        self.length = 0
