"""The limits of one fetch, kept at the socket: a deadline, patience between bytes, and a cap on them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmdata.config import Download
from mmdata.web.failures import FetchError

HEADER_BYTES = 256_000  # what status lines, headers and chunk framing may take beside the body


@dataclass(slots=True)
class Fetch:
    """One fetch in progress, known to the guard through the thread that runs it.

    Args:
        deadline: `time.monotonic()` after which nothing more is waited for.
        budget: bytes that may still arrive.
        idle_s: seconds without a byte before a connection is given up.
        max_bytes: of a body.
        failure: what went wrong, in our own terms; img2dataset hands on text only.
        etag: of the final response.
    """

    deadline: float
    budget: int
    idle_s: float
    max_bytes: int
    failure: FetchError | None = None
    etag: str | None = None

    def patience_s(self) -> float:
        """Seconds that the next wait may take. Raises FetchError `deadline` when there are none left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise FetchError("deadline", "the fetch took longer than download.deadline_s", may_pass=True)
        return min(self.idle_s, left)

    @contextmanager
    def waiting(self, connection: Any) -> Iterator[None]:
        """Let a socket wait as long as patience lasts; a wait that the deadline cut short is a `deadline`."""
        connection.settimeout(self.patience_s())
        try:
            yield
        except TimeoutError:
            self.patience_s()
            raise

    def take(self, count: int) -> None:
        """Count bytes that arrived. Raises FetchError `too_large`."""
        self.budget -= count
        if self.budget < 0:
            raise FetchError("too_large", f"the response is longer than {self.max_bytes} bytes")


_current = threading.local()


@contextmanager
def fetching(download: Download, deadline: float | None = None) -> Iterator[Fetch]:
    """Give this thread a fetch: within the block, what it opens is bound to one deadline and one byte cap.

    Args:
        deadline: `time.monotonic()` at which it ends; by default `download.deadline_s` from now.
    """
    fetch = Fetch(
        deadline=time.monotonic() + download.deadline_s if deadline is None else deadline,
        budget=download.max_bytes + HEADER_BYTES,
        idle_s=download.timeout_s,
        max_bytes=download.max_bytes,
    )
    _current.fetch = fetch
    try:
        yield fetch
    finally:
        _current.fetch = None


def active_fetch() -> Fetch | None:
    """This thread's fetch, or None outside of `fetching`."""
    return getattr(_current, "fetch", None)


def current_fetch() -> Fetch:
    """This thread's fetch. Raises FetchError where there is none."""
    fetch = active_fetch()
    if fetch is None:
        raise FetchError("unexpected", "a URL was opened outside of mmdata.web.limits.fetching")
    return fetch


class _Bound:
    """Mixed into a socket: its reads are bound to the thread's fetch."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        fetch = current_fetch()
        with fetch.waiting(self):
            count = super().recv_into(*args, **kwargs)  # type: ignore[misc]
        fetch.take(count)
        return count


class BoundSocket(_Bound, socket.socket):
    """A TCP socket within the limits."""


class BoundTLSSocket(_Bound, ssl.SSLSocket):
    """The same over TLS."""
