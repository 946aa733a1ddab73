"""The limits of one fetch: a deadline, a time without bytes and a number of bytes. Sockets enforce them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmdata.config import Download
from mmdata.web.failures import FetchError, as_fetch_error

MAX_HEADER_BYTES = 256_000  # a response may have so many bytes besides its body: status, headers, chunk framing


@dataclass(slots=True)
class Fetch:
    """A fetch in progress. The guard finds it through the thread that runs it (see `current_fetch`).

    Args:
        deadline: value of `time.monotonic()` after which the fetch ends.
        bytes_left: how many bytes may still arrive, headers included.
        idle_s: seconds without a byte after which a connection is given up.
        max_bytes: of a body.
        failure: what went wrong; kept here because img2dataset passes on the text of an error only.
        etag: of the final response.
        final_url: that the final response came from, after redirects.
        partial: what arrived of a body that broke off.
        cookies: host and port -> name of a cookie -> `name=value`, and whether it was set over TLS.
        first_host: host and port of the first request; None before it.
    """

    deadline: float
    bytes_left: int
    idle_s: float
    max_bytes: int
    failure: FetchError | None = None
    etag: str | None = None
    final_url: str | None = None
    partial: bytes = b""
    cookies: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)
    first_host: str | None = None

    def wait_limit_s(self) -> float:
        """Seconds that the next wait may take. Raises FetchError `deadline` if the deadline is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise FetchError("deadline", "the fetch took longer than download.deadline_s", may_pass=True)
        return min(self.idle_s, left)

    @contextmanager
    def waiting(self, connection: Any) -> Iterator[None]:
        """Limit the waits of a socket. A timeout at the deadline becomes FetchError `deadline`."""
        connection.settimeout(self.wait_limit_s())
        try:
            yield
        except TimeoutError:
            self.wait_limit_s()  # raises FetchError if the deadline, not the idle limit, ended the wait
            raise

    def count_bytes(self, count: int) -> None:
        """Subtract bytes that arrived. Raises FetchError `too_large`."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise FetchError("too_large", f"the response is longer than {self.max_bytes} bytes")


_current = threading.local()


@contextmanager
def fetching(download: Download, deadline: float | None = None) -> Iterator[Fetch]:
    """Start a fetch in this thread: within the block, one deadline and one byte limit hold for all that it opens.

    Args:
        deadline: value of `time.monotonic()` at which it ends; by default `download.deadline_s` from now.
    """
    fetch = Fetch(
        deadline=time.monotonic() + download.deadline_s if deadline is None else deadline,
        bytes_left=download.max_bytes + MAX_HEADER_BYTES,
        idle_s=download.timeout_s,
        max_bytes=download.max_bytes,
    )
    _current.fetch = fetch
    try:
        yield fetch
    finally:
        _current.fetch = None


def active_fetch() -> Fetch | None:
    """This thread's fetch; None outside of `fetching`."""
    return getattr(_current, "fetch", None)


def current_fetch() -> Fetch:
    """This thread's fetch. Raises FetchError if there is none."""
    fetch = active_fetch()
    if fetch is None:
        raise FetchError("unexpected", "a URL was opened outside of mmdata.web.limits.fetching")
    return fetch


@contextmanager
def recording_failure(fetch: Fetch) -> Iterator[None]:
    """Keep what goes wrong in the block as the failure of the fetch."""
    try:
        yield
    except Exception as error:
        fetch.failure = as_fetch_error(error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # its connection would otherwise stay open until garbage collection
        raise


class _LimitedReads:
    """Mixed into a socket: its reads keep to the limits of the thread's fetch."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        fetch = current_fetch()
        with fetch.waiting(self):
            count = super().recv_into(*args, **kwargs)  # type: ignore[misc]
        fetch.count_bytes(count)
        return count


class LimitedSocket(_LimitedReads, socket.socket):
    """A TCP socket within the limits."""


class LimitedTLSSocket(_LimitedReads, ssl.SSLSocket):
    """A TLS socket within the limits."""
