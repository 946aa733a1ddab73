"""Fetches many URLs with threads: few at a time from any one host, and none from a host that is down."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from mmdata.failure_classes import HOST_DOWN, HOST_FAULTS
from mmdata.observe import logs
from mmdata.urls import host_and_port
from mmdata.web.failures import FetchError
from mmdata.web.host_pauses import HostPauses
from mmdata.web.video_sites import site_of

_log = logs.logger(__name__)
Result = TypeVar("Result")

fetch_seconds: contextvars.ContextVar[list[float] | None] = contextvars.ContextVar("fetch_seconds", default=None)
"""A list that the seconds of each fetch are added to, if the caller sets one; the fetching threads share it."""

HOST_DOWN_AFTER = 32
"""A host is down after so many fetches in a row that failed because of it; the rest of the slice skips it."""


class HostQueue:
    """URLs to fetch, handed out host by host in turn, never more than `per_host` of one host at a time.

    A slow host thus occupies `per_host` threads at most; the other threads fetch from the other hosts.
    """

    def __init__(self, urls: Iterable[str], per_host: int) -> None:
        self._per_host = per_host
        self._waiting: dict[str, deque[str]] = {}
        for url in urls:
            self._waiting.setdefault(host_and_port(url), deque()).append(url)
        self._ready = deque(self._waiting)
        self._active: dict[str, int] = dict.fromkeys(self._waiting, 0)
        self._changed = threading.Condition()
        self.closed = False

    def take(self) -> str | None:
        """The next URL whose host has a free slot; waits for one. None when all URLs are handed out."""
        with self._changed:
            while not self.closed and self._waiting:
                if self._ready:
                    return self._hand_out(self._ready.popleft())
                self._changed.wait()
            return None

    def _hand_out(self, host: str) -> str:
        url = self._waiting[host].popleft()
        self._active[host] += 1
        if not self._waiting[host]:
            del self._waiting[host]
            if not self._waiting:
                self._changed.notify_all()
        elif self._active[host] < self._per_host:
            self._ready.append(host)
        return url

    def done(self, url: str) -> None:
        """Free the slot that a URL took of its host."""
        host = host_and_port(url)
        with self._changed:
            self._active[host] -= 1
            if host in self._waiting and self._active[host] == self._per_host - 1:
                self._ready.append(host)
                self._changed.notify()

    def close(self) -> None:
        """Stop handing out URLs."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class HostHealth:
    """Knows which hosts are not asked: those that are down, and those that block us.

    A host is down when its last `limit` fetches all failed because of the host. Without this, a slice with ten thousand
    URLs of a dead host would wait for ten thousand timeouts.

    Args:
        pauses: knows which hosts block us; None: nobody counts blocks.
    """

    def __init__(self, limit: int, pauses: HostPauses | None = None) -> None:
        self._limit, self._pauses = limit, pauses
        self._faults: Counter[str] = Counter()
        self._lock = threading.Lock()

    def down_error(self, url: str) -> FetchError | None:
        """Why a URL is not fetched now: its host is down or blocks us. None: fetch it, and `record` how that ended."""
        host = asked_host(url)
        if self._faults[host] >= self._limit:
            detail = f"{host} failed {self._limit} times in a row; it is left alone until the next run"
            return FetchError(HOST_DOWN, detail, may_pass=True)
        return None if self._pauses is None else self._pauses.block_error(host, url)

    def record(self, url: str, failure: FetchError | None) -> None:
        """Count one finished fetch. Any answer, a 404 included, shows that the host is up."""
        host, is_host_fault = asked_host(url), failure is not None and failure.error in HOST_FAULTS
        with self._lock:
            self._faults[host] = faults = self._faults[host] + 1 if is_host_fault else 0
        if faults == self._limit:
            _log.warning("host is down; the slice leaves it alone", host=host, failures=faults)
        if self._pauses is not None:
            self._pauses.record(host, url, failure)


def asked_host(url: str) -> str:
    """What is down or blocks as one: the site of a video page, else the host and port of a URL."""
    return site_of(url) or host_and_port(url)


def fetch_all(
    urls: list[str], fetch: Callable[[str], Result], threads: int, per_host: int
) -> Iterator[tuple[str, Result]]:
    """Yield (url, result) as fetches finish, in no particular order.

    Args:
        urls: without duplicates.
        fetch: called in a worker thread. It must end by itself; the guard's deadline makes sure of that.
        threads, per_host: how many fetches run at once, in all and of one host.

    The threads are daemons, so a slow server does not delay the exit after an interrupt.
    """
    host_queue = HostQueue(urls, per_host)
    # the queue is bounded, so that fetched bytes do not pile up while the consumer writes
    results: queue.Queue[tuple[str, Result | BaseException]] = queue.Queue(maxsize=2 * threads)

    def work() -> None:
        while (url := host_queue.take()) is not None:
            started = time.monotonic()
            try:
                result: Result | BaseException = fetch(url)
            except BaseException as error:  # noqa: BLE001 - the consuming thread raises it
                result = error
            if (seconds := fetch_seconds.get()) is not None:
                seconds.append(time.monotonic() - started)
            host_queue.done(url)
            while not host_queue.closed:
                with suppress(queue.Full):
                    results.put((url, result), timeout=1)
                    break

    for number in range(min(threads, len(urls))):
        # a copy of the context variables, so that the worker threads log part and slice, too
        run_in_context = contextvars.copy_context().run
        threading.Thread(target=run_in_context, args=(work,), name=f"fetch-{number}", daemon=True).start()
    remaining = len(urls)
    try:
        while remaining:
            try:
                # short waits: Python handles an interrupt in this thread only, and not while it waits
                url, result = results.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(result, BaseException):
                raise result
            yield url, result
            remaining -= 1
    finally:
        host_queue.close()
