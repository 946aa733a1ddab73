"""Fetching with many threads, but few at a time from any one host, and none from a host that is down."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from mmdata.observe import logs
from mmdata.urls import host_and_port

_log = logs.logger(__name__)
Result = TypeVar("Result")

fetch_seconds: contextvars.ContextVar[list[float] | None] = contextvars.ContextVar("fetch_seconds", default=None)
"""Takes the seconds of each fetch, where somebody wants them; the threads that fetch share it."""

HOST_DOWN_AFTER = 32
"""Fetches of one host that fail for its own sake, in a row, before the rest of a slice leaves it alone."""


class HostQueue:
    """URLs to fetch, handed out host by host in turn, never more than `per_host` of one host at a time.

    A slow host thus keeps `per_host` threads at most, and the others go on with the rest.
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
        """The next URL whose host has room; waits for one; None when all are handed out."""
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
        """Give the URL's place at its host back."""
        host = host_and_port(url)
        with self._changed:
            self._active[host] -= 1
            if host in self._waiting and self._active[host] == self._per_host - 1:
                self._ready.append(host)
                self._changed.notify()

    def close(self) -> None:
        """Hand out no more."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class HostHealth:
    """Which hosts are down: those whose last `limit` fetches all failed for the host's own sake.

    Without it a slice with ten thousand URLs of a dead host would wait for each one's timeout.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._faults: Counter[str] = Counter()
        self._lock = threading.Lock()

    def is_down(self, url: str) -> bool:
        return self._faults[host_and_port(url)] >= self._limit

    def note(self, url: str, is_host_fault: bool) -> None:
        """Count one finished fetch; any answer at all, a 404 included, shows that the host lives."""
        host = host_and_port(url)
        with self._lock:
            self._faults[host] = faults = self._faults[host] + 1 if is_host_fault else 0
        if faults == self._limit:
            _log.warning("host is down; the slice leaves it alone", host=host, failures=faults)


def fetch_all(
    urls: list[str], fetch: Callable[[str], Result], threads: int, per_host: int
) -> Iterator[tuple[str, Result]]:
    """Yield (url, result) as fetches finish, in no particular order.

    Args:
        urls: each once.
        fetch: called in a worker thread; must end by itself (the guard's deadline sees to it).
        threads, per_host: how many at once, in all and to one host.

    The threads are daemons: an interrupt in the main thread is never kept waiting by a slow server.
    """
    waiting = HostQueue(urls, per_host)
    # bounded, so that fetched bytes do not pile up while the consumer writes
    results: queue.Queue[tuple[str, Result | BaseException]] = queue.Queue(maxsize=2 * threads)

    def work() -> None:
        while (url := waiting.take()) is not None:
            began = time.monotonic()
            try:
                result: Result | BaseException = fetch(url)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that iterates, which raises it
                result = error
            if (seconds := fetch_seconds.get()) is not None:
                seconds.append(time.monotonic() - began)
            waiting.done(url)
            while not waiting.closed:
                with suppress(queue.Full):
                    results.put((url, result), timeout=1)
                    break

    for number in range(min(threads, len(urls))):
        ours = contextvars.copy_context().run  # what is fetched for stands in the threads' events too
        threading.Thread(target=ours, args=(work,), name=f"fetch-{number}", daemon=True).start()
    left = len(urls)
    try:
        while left:
            try:
                # in short waits: the kernel may give an interrupt to another thread, and Python handles it in this one
                url, result = results.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(result, BaseException):
                raise result
            yield url, result
            left -= 1
    finally:
        waiting.close()
