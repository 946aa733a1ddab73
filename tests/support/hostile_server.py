"""A web server on loopback that answers well, badly, slowly, endlessly or not at all; it writes raw bytes."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, unquote, urlsplit

import cv2
import numpy as np

STEP_S = 0.05


def picture(number: int, width: int = 320, height: int = 300) -> np.ndarray:
    """A picture that can be told from the others by its mean colour. uint8 height, width, 3 (BGR)."""
    colour = (number * 37 % 256, number * 91 % 256, number * 151 % 256)
    return np.full((height, width, 3), colour, np.uint8)


def jpeg(number: int, width: int = 320, height: int = 300) -> bytes:
    return cv2.imencode(".jpg", picture(number, width, height), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HostileServer:
    """Serves `/jpg/<number>`, the answers in `files`, and the misbehaviours below, each by its path.

    Args:
        address: of loopback; all of 127.0.0.0/8 works on Linux.
        certificate: PEM file with key and certificate: speak TLS.
    """

    def __init__(self, address: str = "127.0.0.1", certificate: str | None = None) -> None:
        self.files: dict[str, bytes] = {}  # path -> a whole answer
        self.hits: Counter[str] = Counter()
        self.open_now: Counter[str] = Counter()
        self.most_open = 0
        self.paused_now = self.most_paused = 0
        self.requests: dict[str, str] = {}  # path -> the latest request's text
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._tls = None
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)
        self._socket = socket.create_server((address, 0), backlog=256)
        self.address, self.port = self._socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str, host: str | None = None) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host or self.address}:{self.port}{path}"

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request and (more := connection.recv(65536)):
                request += more
            if not request:
                return
            target = request.split(b" ", 2)[1].decode()
            parts = urlsplit(target)
            with self._lock:
                self.hits[parts.path] += 1
                self.requests[parts.path] = request.decode("latin-1")
                self.open_now["all"] += 1
                self.most_open = max(self.most_open, self.open_now["all"])
            try:
                self._respond(connection, unquote(parts.path), parse_qs(parts.query))
            finally:
                with self._lock:
                    self.open_now["all"] -= 1
        with suppress(OSError):
            connection.close()

    def _respond(self, connection: socket.socket, path: str, query: dict[str, list[str]]) -> None:
        if path in self.files:
            connection.sendall(self.files[path])
            return
        name, _, rest = path.lstrip("/").partition("/")
        behaviours: dict[str, Callable[[], None]] = {
            "jpg": lambda: connection.sendall(answer(jpeg(int(rest)), Content_Type="image/jpeg", ETag='"v1"')),
            "status": lambda: connection.sendall(answer(b"no", f"{rest} Because", **_extra(query))),
            "to": lambda: connection.sendall(answer(b"", "302 Found", Location=query["url"][0])),
            "hops": lambda: connection.sendall(
                answer(jpeg(1)) if rest == "0" else answer(b"", "302 Found", Location=f"/hops/{int(rest) - 1}")
            ),
            "tagged": lambda: connection.sendall(_tagged(query["tag"])),
            "gzip": lambda: connection.sendall(answer(b"\x1f\x8b", Content_Encoding="gzip")),
            "busy": lambda: connection.sendall(
                answer(b"", "429 Too Many Requests", **_extra(query)) if self.hits[path] == 1 else answer(jpeg(2))
            ),
            "pause": lambda: self._pause(connection),
            "silent": self._wait,
            "drip": lambda: self._drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
            "trickle": lambda: self._drip(connection, b"HTTP/1.1 200 OK\r\nX-Pad: "),
            "liar": lambda: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n\xff\xd8"),
            "endless": lambda: self._flood(connection, b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 65536),
            "chunks": lambda: self._flood(
                connection,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"10000\r\n" + b"\0" * 65536 + b"\r\n",
            ),
            "header-flood": lambda: self._flood(connection, b"HTTP/1.1 200 OK\r\n", b"A: " + b"b" * 60000 + b"\r\n"),
            "reset": lambda: _reset(connection, answer(jpeg(3))[:400]),
            "short": lambda: connection.sendall(answer(jpeg(3))[:-50]),
            "garbage": lambda: connection.sendall(b"\x00\x01\x02 not http at all\r\n\r\n"),
        }
        behaviours.get(name, lambda: connection.sendall(answer(b"gone", "404 Not Found")))()

    def _wait(self) -> None:
        self.stopping.wait(30)

    def _pause(self, connection: socket.socket) -> None:
        with self._lock:
            self.paused_now += 1
            self.most_paused = max(self.most_paused, self.paused_now)
        self.stopping.wait(2 * STEP_S)
        with self._lock:  # before the answer: the client may be back before this thread runs again
            self.paused_now -= 1
        connection.sendall(answer(jpeg(4)))

    def _drip(self, connection: socket.socket, head: bytes) -> None:
        connection.sendall(head)
        while not self.stopping.wait(STEP_S):
            connection.sendall(b"x")

    def _flood(self, connection: socket.socket, head: bytes, block: bytes) -> None:
        connection.sendall(head)
        while not self.stopping.is_set():
            connection.sendall(block)


def _extra(query: dict[str, list[str]]) -> dict[str, str]:
    return {"Retry-After": query["after"][0]} if "after" in query else {}


def _tagged(tags: list[str]) -> bytes:
    head, _, body = answer(jpeg(1)).partition(b"\r\n\r\n")
    lines = "".join(f"\r\nX-Robots-Tag: {tag}" for tag in tags)
    return head + lines.encode() + b"\r\n\r\n" + body


def _reset(connection: socket.socket, start: bytes) -> None:
    connection.sendall(start)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
