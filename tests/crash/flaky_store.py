"""An object store that fails: a proxy before moto's server, which lets requests fall at chosen numbers.

Faults:
    error       500 or 503, and nothing is done
    refused     the connection ends before anything is done
    late        it is done, and the connection ends before the answer
    torn        it is done, and the answer ends in the middle
    cut         half of a body that is sent arrives, and nothing is done
    stale       a listing is answered as it was the first time
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("error", "refused", "late", "torn", "cut", "stale")
ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>Please try again.</Message></Error>'
STORE = {500: b"InternalError", 503: b"SlowDown"}


class FlakyStore:
    """What goes wrong, and how often it did.

    Attributes:
        requests: seen since `plan`.
        fell: fault -> how many requests fell to it since `plan`.
    """

    def __init__(self, store: str) -> None:
        self.store = urlsplit(store)
        self.requests = 0
        self.fell: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._fault, self._first, self._left = "", 0, 0
        self._listings: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        self._numbers = random.Random(0)

    def plan(self, fault: str = "", first: int = 0, count: int = 1, seed: int = 0) -> None:
        """Let `count` requests in a row fall to a fault, from the `first` (1, 2, …) on; none: all is well again."""
        with self._lock:
            self.requests, self.fell = 0, Counter()
            self._fault, self._first, self._left = fault, first, count
            self._listings, self._numbers = {}, random.Random(seed)

    def next_fault(self, has_body: bool) -> str:
        with self._lock:
            self.requests += 1
            is_meant = has_body or self._fault != "cut"
            if not self._fault or self.requests < self._first or not self._left or not is_meant:
                return ""
            self._left -= 1
            return self._fault

    def note(self, fault: str) -> None:
        with self._lock:
            self.fell[fault] += 1

    def first_listing(self, path: str, answer: tuple[int, list[tuple[str, str]], bytes]) -> tuple[int, list, bytes]:
        with self._lock:
            return self._listings.setdefault(path, answer)

    def choose(self, *options: int) -> int:
        with self._lock:
            return self._numbers.choice(options)


@contextmanager
def flaky_store(store: str) -> Iterator[tuple[str, FlakyStore]]:
    """The URL of a proxy before the store at this URL, and what steers it."""
    flaky = FlakyStore(store)

    class Handler(_Handler):
        flaky_store = flaky

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", flaky
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: each answer would wait 40 ms
    flaky_store: FlakyStore

    def _any(self) -> None:
        flaky = self.flaky_store
        length = int(self.headers.get("Content-Length", 0))
        fault = flaky.next_fault(length > 0)
        if fault == "cut":
            flaky.note(fault)
            self.rfile.read(length // 2)
            self._hang_up()
            return
        body = self.rfile.read(length)
        if fault == "refused":
            flaky.note(fault)
            self._hang_up()
            return
        if fault == "error":
            flaky.note(fault)
            status = flaky.choose(500, 503)
            self._answer(status, [("Content-Type", "application/xml")], ERROR % STORE[status])
            return
        status, headers, answer = self._forward(body)
        if "list-type=2" in self.path and self.command == "GET":
            first = flaky.first_listing(self.path, (status, headers, answer))
            if fault == "stale":
                flaky.note(fault)
                status, headers, answer = first
        if fault == "late":
            flaky.note(fault)
            self._hang_up()
        elif fault == "torn" and len(answer) > 1:
            flaky.note(fault)
            self._answer(status, headers, answer, sent=len(answer) // 2)
            self._hang_up()
        else:
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        store = self.flaky_store.store
        connection = http.client.HTTPConnection(str(store.hostname), store.port, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        known = {name.lower(): value for name, value in headers}
        length = known.get("content-length", str(len(body))) if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""
