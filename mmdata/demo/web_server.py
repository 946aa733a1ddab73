"""A small web on loopback: serves a folder, and misbehaves on purpose under `/odd/`."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from mmdata.errors import UserError

HOST = "127.0.0.1"
MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".flac": "audio/flac",
    ".html": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
PRIVATE = "http://10.0.0.1/internal.png"
METADATA_SERVICE = "http://169.254.169.254/latest/meta-data/"
ENDLESS_BYTES = 1 << 30  # even an endless body ends, should nobody hang up

_CHUNK_BYTES = 1 << 16
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class DemoServer:
    """Serves a folder over HTTP/1.1 on 127.0.0.1, in threads of its own, as a context manager.

    Plain files have their right type, an ETag, ranges and HEAD. Under `/odd/`, `PATH` being a file of the folder:

    - `redirect/N/PATH`: N redirects, then the file
    - `to-private`, `to-metadata`: redirects to a private address, to a cloud's metadata service
    - `loop`: redirects to itself
    - `slow/PATH`: one byte a second
    - `busy/PATH`: 429 with `Retry-After: 1` the first time, then the file
    - `down/PATH`: always 503; `gone/PATH`: 410
    - `noai/PATH`: the file with `X-Robots-Tag: noai`
    - `mislabelled/PATH`: the file as text/plain
    - `html/NAME`: a page of HTML as image/jpeg
    - `cut/PATH`: half of the bytes that Content-Length promises
    - `endless/NAME`: a PNG signature and zeros without end, chunked; `huge/NAME`: the same with a Content-Length

    Args:
        site: the folder.
        port: 0 takes a free one.
        byte_s: seconds between the bytes of `slow`.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, site: Path | str, port: int = 0, byte_s: float = 1.0) -> None:
        try:
            self._server = _Server((HOST, port), Path(site).resolve(), byte_s)
        except OSError as error:
            raise UserError(
                f"{HOST}:{port} cannot be listened on ({error.strerror}). Remedy: end what uses the port (a "
                "demo that runs still, perhaps), or make the demo in another folder, where it takes a free port."
            ) from None
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"demo web {self.port}", daemon=True
        )

    @property
    def requests(self) -> list[tuple[str, str]]:
        """What was asked for so far: method and path, in order of arrival."""
        return list(self._server.requests)

    def start(self) -> DemoServer:
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening, cut every open connection, and wait for the threads."""
        self._server.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.cut_connections()

    def __enter__(self) -> DemoServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], site: Path, byte_s: float) -> None:
        self.site, self.byte_s = site, byte_s
        self.stopping = threading.Event()
        self.requests: deque[tuple[str, str]] = deque(maxlen=100_000)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._refused_once: set[str] = set()
        super().__init__(address, _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)

    def cut_connections(self) -> None:
        with self._lock:
            connections = dict(self._open)
        for connection in connections:
            with suppress(OSError):  # it may have closed in this moment
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(timeout=2)

    def first_time(self, path: str) -> bool:
        with self._lock:
            fresh = path not in self._refused_once
            self._refused_once.add(path)
            return fresh

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what a web server lives with; anything else is shown as usual."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mmdata-demo", ""
    timeout = 30  # an idle kept-alive connection
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        if not path.startswith("/odd/"):
            self._file(path)
            return
        word, _, rest = path.removeprefix("/odd/").partition("/")
        behave = _ODD.get(word)
        if behave is None:
            self._text(HTTPStatus.NOT_FOUND, "no such oddity")
        else:
            behave(self, f"/{rest}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """The demo's console shows progress, not a web server's log."""

    def redirect(self, path: str) -> None:
        count, _, rest = path[1:].partition("/")
        if not count.isdigit():
            self._text(HTTPStatus.NOT_FOUND, "redirect/N/PATH")
            return
        left = int(count) - 1
        self._redirect(f"/{rest}" if left <= 0 else f"/odd/redirect/{left}/{rest}")

    def to_private(self, path: str) -> None:
        self._redirect(PRIVATE)

    def to_metadata(self, path: str) -> None:
        self._redirect(METADATA_SERVICE)

    def loop(self, path: str) -> None:
        self._redirect(self.path)

    def slow(self, path: str) -> None:
        body = self._read(path)
        if body is None:
            return
        self._head(HTTPStatus.OK, {"Content-Type": self._type(path), "Content-Length": str(len(body))})
        if self.command == "HEAD":
            return
        for at in range(len(body)):
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
            if self.server.stopping.wait(self.server.byte_s):
                self.close_connection = True
                return

    def busy(self, path: str) -> None:
        if self.command == "GET" and self.server.first_time(path):
            self._text(HTTPStatus.TOO_MANY_REQUESTS, "later, please", {"Retry-After": "1"})
        else:
            self._file(path)

    def down(self, path: str) -> None:
        self._text(HTTPStatus.SERVICE_UNAVAILABLE, "down for ever")

    def gone(self, path: str) -> None:
        self._text(HTTPStatus.GONE, "gone")

    def noai(self, path: str) -> None:
        self._file(path, {"X-Robots-Tag": "noai"})

    def mislabelled(self, path: str) -> None:
        self._file(path, {"Content-Type": "text/plain; charset=utf-8"})

    def html(self, path: str) -> None:
        page = "<!doctype html><title>Sign in</title><p>Please sign in to see this picture.</p>"
        self._text(HTTPStatus.OK, page, {"Content-Type": "image/jpeg"})

    def cut(self, path: str) -> None:
        body = self._read(path)
        if body is None:
            return
        self._head(HTTPStatus.OK, {"Content-Type": self._type(path), "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def huge(self, path: str) -> None:
        self._head(HTTPStatus.OK, {"Content-Type": "image/png", "Content-Length": str(ENDLESS_BYTES)})
        self.close_connection = True
        if self.command == "GET":
            for chunk in self._zeros():
                self.wfile.write(chunk)

    def endless(self, path: str) -> None:
        self._head(HTTPStatus.OK, {"Content-Type": "image/png", "Transfer-Encoding": "chunked"})
        self.close_connection = True
        if self.command == "GET":
            for chunk in self._zeros():
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")

    def _zeros(self) -> Iterator[bytes]:
        yield b"\x89PNG\r\n\x1a\n"
        for _ in range(ENDLESS_BYTES // _CHUNK_BYTES):
            if self.server.stopping.is_set():
                return
            yield bytes(_CHUNK_BYTES)

    def _file(self, path: str, headers: dict[str, str] | None = None) -> None:
        body = self._read(path)
        if body is None:
            return
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        own = {"Content-Type": self._type(path), "ETag": etag, "Accept-Ranges": "bytes"} | (headers or {})
        if etag in self.headers.get("If-None-Match", ""):
            self._head(HTTPStatus.NOT_MODIFIED, own)
            return
        span = _range(self.headers.get("Range"), len(body))
        if span is not None and span[0] >= span[1]:
            whole = {"Content-Range": f"bytes */{len(body)}"}
            self._text(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no such range", whole)
            return
        status = HTTPStatus.OK
        if span is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            own["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{len(body)}"
            body = body[span[0] : span[1]]
        self._head(status, own | {"Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _read(self, path: str) -> bytes | None:
        """A file of the site; answers 404 itself where there is none. Nothing outside of the site is ever read."""
        if "\0" not in path:
            target = (self.server.site / path.lstrip("/")).resolve()
            if target.is_relative_to(self.server.site) and target.is_file():
                return target.read_bytes()
        self._text(HTTPStatus.NOT_FOUND, "not found")
        return None

    def _type(self, path: str) -> str:
        return MIME.get(Path(path).suffix.lower(), "application/octet-stream")

    def _text(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        body = f"{text}\n".encode()
        own = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        self._head(status, own | (headers or {}))
        if self.command == "GET":
            self.wfile.write(body)

    def _redirect(self, target: str) -> None:
        self._text(HTTPStatus.FOUND, "elsewhere", {"Location": target})

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


_ODD: dict[str, Callable[[_Handler, str], None]] = {
    "redirect": _Handler.redirect,
    "to-private": _Handler.to_private,
    "to-metadata": _Handler.to_metadata,
    "loop": _Handler.loop,
    "slow": _Handler.slow,
    "busy": _Handler.busy,
    "down": _Handler.down,
    "gone": _Handler.gone,
    "noai": _Handler.noai,
    "mislabelled": _Handler.mislabelled,
    "html": _Handler.html,
    "cut": _Handler.cut,
    "huge": _Handler.huge,
    "endless": _Handler.endless,
}


def _range(header: str | None, length: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None: the whole. An empty span cannot be satisfied."""
    found = _RANGE.fullmatch(header or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first == "":
        return (max(length - int(last), 0), length) if int(last) else (0, 0)
    return int(first), min(int(last) + 1, length) if last else length
