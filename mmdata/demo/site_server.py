"""Serve a folder over HTTP/1.1 on loopback, with types, ETags and byte ranges; the demo's web server builds on it."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

MIME_TYPES = {
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

_BYTE_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class SiteServer(ThreadingHTTPServer):
    """A threading server of a folder, whose open connections can be cut at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[SiteHandler], site: Path) -> None:
        self.site = site
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        super().__init__(address, handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer the requests of one connection, in a thread of its own."""
        with self.lock:
            self._connections[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.lock:
                self._connections.pop(request, None)

    def cut_connections(self) -> None:
        """Close all open connections, and wait for their threads."""
        with self.lock:
            connections = dict(self._connections)
        for connection in connections:
            with suppress(OSError):  # it may have closed in this moment
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(timeout=2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up; show all other errors as usual."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class SiteHandler(BaseHTTPRequestHandler):
    """Answers GET with the files of the site."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mmdata-demo", ""
    timeout = 30  # seconds that an idle connection is kept open
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True
    server: SiteServer

    def do_GET(self) -> None:
        self.answer(unquote(urlsplit(self.path).path))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the demo's console shows its progress."""

    def answer(self, path: str) -> None:
        """Answer a request for a path, already unquoted."""
        self.send_file(path)

    def send_file(self, path: str, headers: dict[str, str] | None = None) -> None:
        """Send a file of the site, or the range that the client asks for; `headers` replace the usual ones."""
        body = self.read_file(path)
        if body is None:
            return
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"Content-Type": mime_type(path), "ETag": etag, "Accept-Ranges": "bytes"} | (headers or {})
        status, wanted = HTTPStatus.OK, _BYTE_RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted is not None:
            start, stop = int(wanted[1]), min(int(wanted[2] or len(body)) + 1, len(body))
            if start >= stop:
                content_range = {"Content-Range": f"bytes */{len(body)}"}
                self.send_text(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no such range", content_range)
                return
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
            body = body[start:stop]
        self.send_headers(status, headers | {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def read_file(self, path: str) -> bytes | None:
        """Read a file of the site; sends 404 where there is none. Never reads anything outside of the site."""
        if "\0" not in path:
            target = (self.server.site / path.lstrip("/")).resolve()
            if target.is_relative_to(self.server.site) and target.is_file():
                return target.read_bytes()
        self.send_text(HTTPStatus.NOT_FOUND, "not found")
        return None

    def send_text(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        body = f"{text}\n".encode()
        usual = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        self.send_headers(status, usual | (headers or {}))
        self.wfile.write(body)

    def send_headers(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def mime_type(path: str) -> str:
    """The type of a file by its suffix."""
    return MIME_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")
