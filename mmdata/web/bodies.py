"""Reads the body of a response: within the limits of its fetch, and without its encodings."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

from mmdata.web.encodings import READ_BYTES, Blocks, decoded, encodings_of
from mmdata.web.failures import FetchError
from mmdata.web.limits import Fetch, recording_failure


class Body:
    """Stands in for the method `read` of a response.

    What has arrived of a body that ends before its length or its last chunk is in `partial` of the error, and of a
    whole read in `fetch.partial`: some servers give a wrong length, and the bytes may be complete all the same.

    Args:
        response: of http.client; its `read` is replaced.
    """

    def __init__(self, response: Any, fetch: Fetch) -> None:
        self._response, self._fetch = response, fetch
        self._read: Callable[..., bytes] = response.read
        self._total = 0
        codings = [
            *response.headers.get_all("Content-Encoding", []),
            *response.headers.get_all("Transfer-Encoding", []),
        ]
        encodings = encodings_of(codings)
        self._blocks = decoded(self._raw_blocks(), encodings, fetch) if encodings else None
        self._pending = bytearray()

    def read(self, size: int | None = None) -> bytes:
        """At most `size` bytes, or all. Raises FetchError, IncompleteRead, OSError."""
        size = None if size is None or size < 0 else size
        with recording_failure(self._fetch):
            try:
                data = self._raw(size) if self._blocks is None else self._decoded(self._blocks, size)
            except http.client.IncompleteRead as error:
                if size is None and len(error.partial) <= self._fetch.max_bytes:
                    self._fetch.partial = error.partial
                raise
            self._total += len(data)
            if self._total > self._fetch.max_bytes:
                raise FetchError("too_large", f"the body is over the limit of {self._fetch.max_bytes} bytes")
            return data

    def _raw(self, size: int | None) -> bytes:
        if size is None:
            return self._read()
        data = self._read(size)
        if not data and size and self._response.length:  # http.client reports this for a whole read only
            raise http.client.IncompleteRead(b"", self._response.length)
        return data

    def _raw_blocks(self) -> Blocks:
        try:
            while data := self._raw(READ_BYTES):
                yield data
        except http.client.IncompleteRead as error:
            yield error.partial
            raise http.client.IncompleteRead(b"", error.expected) from None

    def _decoded(self, blocks: Blocks, size: int | None) -> bytes:
        try:
            while size is None or len(self._pending) < size:
                block = next(blocks, None)
                if block is None:
                    break
                self._pending += block
        except http.client.IncompleteRead as error:
            partial, self._pending = bytes(self._pending), bytearray()
            raise type(error)(partial, error.expected) from None
        data = bytes(self._pending if size is None else self._pending[:size])
        del self._pending[: len(data)]
        return data
