"""Fetching with many threads, but few at a time from any one host."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")


class HostQueue:
    """URLs to fetch, handed out host by host in turn, never more than `per_host` of one host at a time.

    A slow host thus keeps `per_host` threads at most, and the others go on with the rest.
    """

    def __init__(self, urls: Iterable[str], per_host: int) -> None:
        self._per_host = per_host
        self._waiting: dict[str, deque[str]] = {}
        for url in urls:
            self._waiting.setdefault(host_of(url), deque()).append(url)
        self._ready = deque(self._waiting)
        self._active: dict[str, int] = dict.fromkeys(self._waiting, 0)
        self._changed = threading.Condition()
        self._closed = False

    def take(self) -> str | None:
        """The next URL whose host has room; waits for one; None when all are handed out."""
        with self._changed:
            while True:
                if self._closed or not self._waiting:
                    return None
                if self._ready:
                    host = self._ready.popleft()
                    url = self._waiting[host].popleft()
                    self._active[host] += 1
                    if not self._waiting[host]:
                        del self._waiting[host]
                        self._changed.notify_all()
                    elif self._active[host] < self._per_host:
                        self._ready.append(host)
                    return url
                self._changed.wait()

    def done(self, url: str) -> None:
        """Give the URL's place at its host back."""
        host = host_of(url)
        with self._changed:
            self._active[host] -= 1
            if host in self._waiting and self._active[host] == self._per_host - 1:
                self._ready.append(host)
                self._changed.notify()

    def close(self) -> None:
        """Hand out no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class fetch_all(Generic[Result]):  # noqa: N801 - used as a function; a class so that leaving the loop stops the threads
    """Iterate over (url, result) as fetches finish.

    Args:
        urls: each once.
        fetch: called in a worker thread; must not raise, and must end by itself (the guard's deadline sees to it).
        threads, per_host: how many at once, in all and to one host.

    The threads are daemons: an interrupt in the main thread is never kept waiting by a slow server.
    """

    def __init__(self, urls: list[str], fetch: Callable[[str], Result], threads: int, per_host: int) -> None:
        self._queue = HostQueue(urls, per_host)
        self._count = len(urls)
        self._fetch = fetch
        # bounded, so that fetched bytes do not pile up while the consumer writes
        self._results: queue.Queue[tuple[str, Result | BaseException]] = queue.Queue(maxsize=2 * threads)
        for number in range(min(threads, self._count)):
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[str, Result]]:
        try:
            for _ in range(self._count):
                url, result = self._results.get()
                if isinstance(result, BaseException):
                    raise result
                yield url, result
        finally:
            self._queue.close()

    def _work(self) -> None:
        while (url := self._queue.take()) is not None:
            try:
                result: Result | BaseException = self._fetch(url)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that iterates, which raises it
                result = error
            self._queue.done(url)
            self._results.put((url, result))


def host_of(url: str) -> str:
    """What politeness is counted by: host and port."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
