"""A web server on loopback for large files: it supports ranges, and closes connections early on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Film:
    """A file on the server.

    Args:
        breaks: after how many bytes the first, second, … answer ends early; later answers are whole.
        ranges: whether the header Range is respected.
        status: of every answer; None: what fits the request.
        before: called with the film and the number of the request, from 0, before each answer.
    """

    body: bytes
    etag: str | None = '"v1"'
    modified: str | None = None
    mime: str = "video/mp4"
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    before: Callable[[Film, int], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None


@dataclass(frozen=True)
class Request:
    """A request, and the status of its answer."""

    path: str
    range: str | None
    if_range: str | None
    status: int
    agent: str | None


class FilmServer:
    """Serves `films` by path, and keeps the `requests`."""

    def __init__(self) -> None:
        self.films: dict[str, Film] = {}
        self.requests: list[Request] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                served.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> FilmServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        film = self.films.get(path)
        number = self.count(path)
        if film is not None and film.before is not None:
            film.before(film, number)
        byte_range, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        status, start = 404, 0
        if film is not None:
            fits = condition is None or condition in (film.etag, film.modified)
            start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range and film.ranges and fits else 0
            status = 200 if not start else 206 if start < len(film.body) else 416
            status = film.status or status
        self.requests.append(Request(path, byte_range, condition, status, handler.headers.get("User-Agent")))
        body = film.body[start:] if film is not None and status != 416 else b""
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Connection", "close")
        if film is not None:
            headers = {"Content-Type": film.mime, "ETag": film.etag, "Last-Modified": film.modified, **film.headers}
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{len(film.body) - 1}/{len(film.body)}"
            for name, value in headers.items():
                if value is not None:
                    handler.send_header(name, value)
        handler.end_headers()
        breaks = film.breaks[number] if film is not None and number < len(film.breaks) else len(body)
        handler.wfile.write(body[:breaks])
        handler.close_connection = True
