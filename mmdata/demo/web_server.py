"""The demo's small web: a folder served on loopback, with pages under `/odd/` that misbehave as the real web does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

from mmdata.demo.site_server import SiteHandler, SiteServer, mime_type
from mmdata.errors import UserError

HOST = "127.0.0.1"
PRIVATE_URL = "http://10.0.0.1/internal.png"
CLOUD_METADATA_URL = "http://169.254.169.254/latest/meta-data/"
ENDLESS_BYTES = 1 << 30  # an endless body ends here, should the client never hang up

_CHUNK_BYTES = 1 << 16


class DemoServer:
    """Serves a folder over HTTP/1.1 on 127.0.0.1, in its own threads; a context manager.

    Plain files have their right type, an ETag and byte ranges. Under `/odd/`, where `PATH` is a file of the folder:

    - `redirect/N/PATH`: N redirects, then the file
    - `to-private`, `to-metadata`: redirects to a private address, to a cloud's metadata service
    - `loop`: redirects to itself
    - `slow/PATH`: one byte a second
    - `busy/PATH`: 429 with `Retry-After: 1` the first time, then the file
    - `down/PATH`: always 503; `gone/PATH`: 410
    - `noai/PATH`: the file with `X-Robots-Tag: noai`
    - `mislabelled/PATH`: the file as text/plain
    - `html/NAME`: an HTML page as image/jpeg
    - `cut/PATH`: half of the bytes that Content-Length promises
    - `endless/NAME`: a PNG signature and zeros without end, chunked; `huge/NAME`: the same with a Content-Length

    Port 0 takes a free one; `byte_s` are the seconds between the bytes of `slow`. Raises UserError if it is taken.
    """

    def __init__(self, site: Path | str, port: int = 0, byte_s: float = 1.0) -> None:
        try:
            self._server = _DemoSiteServer((HOST, port), Path(site).resolve(), byte_s)
        except OSError as error:
            raise UserError(
                f"{HOST}:{port} cannot be listened on ({error.strerror}). Remedy: stop the program that uses the port "
                "(perhaps another demo), or make the demo in another folder, where it takes a free port."
            ) from None
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"demo web {self.port}", daemon=True
        )

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

    def __exit__(self, *_: object) -> None:
        self.close()


class _DemoSiteServer(SiteServer):
    def __init__(self, address: tuple[str, int], site: Path, byte_s: float) -> None:
        self.byte_s = byte_s
        self._refused_paths: set[str] = set()
        super().__init__(address, _DemoHandler, site)

    def is_first_request(self, path: str) -> bool:
        """Whether `busy` was never asked for this path before."""
        with self.lock:
            is_first = path not in self._refused_paths
            self._refused_paths.add(path)
            return is_first


class _DemoHandler(SiteHandler):
    """A method per word under `/odd/`; `path` is what follows the word."""

    server: _DemoSiteServer

    def answer(self, path: str) -> None:
        if not path.startswith("/odd/"):
            self.send_file(path)
            return
        word, _, rest = path.removeprefix("/odd/").partition("/")
        behaviour = _BEHAVIOURS.get(word)
        if behaviour is None:
            self.send_text(HTTPStatus.NOT_FOUND, "no such oddity")
        else:
            behaviour(self, f"/{rest}")

    def redirect(self, path: str) -> None:
        count, _, rest = path[1:].partition("/")
        if not count.isdigit():
            self.send_text(HTTPStatus.NOT_FOUND, "redirect/N/PATH")
            return
        left = int(count) - 1
        self.redirect_to(f"/{rest}" if left <= 0 else f"/odd/redirect/{left}/{rest}")

    def slow(self, path: str) -> None:
        body = self._send_headers_of(path)
        for number in range(len(body)):
            self.wfile.write(body[number : number + 1])
            self.wfile.flush()
            if self.server.stopping.wait(self.server.byte_s):
                self.close_connection = True
                return

    def busy(self, path: str) -> None:
        if self.server.is_first_request(path):
            self.send_text(HTTPStatus.TOO_MANY_REQUESTS, "later, please", {"Retry-After": "1"})
        else:
            self.send_file(path)

    def html(self, path: str) -> None:
        page = "<!doctype html><title>Sign in</title><p>Please sign in to see this picture.</p>"
        self.send_text(HTTPStatus.OK, page, {"Content-Type": "image/jpeg"})

    def cut(self, path: str) -> None:
        body = self._send_headers_of(path)
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def huge(self, path: str) -> None:
        self.send_headers(HTTPStatus.OK, {"Content-Type": "image/png", "Content-Length": str(ENDLESS_BYTES)})
        self.close_connection = True
        for chunk in self._zeros():
            self.wfile.write(chunk)

    def endless(self, path: str) -> None:
        self.send_headers(HTTPStatus.OK, {"Content-Type": "image/png", "Transfer-Encoding": "chunked"})
        self.close_connection = True
        for chunk in self._zeros():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def _send_headers_of(self, path: str) -> bytes:
        """Send the headers of a file, and return its body; empty where there is no such file."""
        body = self.read_file(path)
        if body is None:
            return b""
        self.send_headers(HTTPStatus.OK, {"Content-Type": mime_type(path), "Content-Length": str(len(body))})
        return body

    def _zeros(self) -> Iterator[bytes]:
        """A PNG signature, then zeros up to ENDLESS_BYTES or until the server stops."""
        yield b"\x89PNG\r\n\x1a\n"
        for _ in range(ENDLESS_BYTES // _CHUNK_BYTES):
            if self.server.stopping.is_set():
                return
            yield bytes(_CHUNK_BYTES)

    def redirect_to(self, url: str) -> None:
        self.send_text(HTTPStatus.FOUND, "elsewhere", {"Location": url})


_BEHAVIOURS: dict[str, Callable[[_DemoHandler, str], None]] = {
    "redirect": _DemoHandler.redirect,
    "to-private": lambda handler, _: handler.redirect_to(PRIVATE_URL),
    "to-metadata": lambda handler, _: handler.redirect_to(CLOUD_METADATA_URL),
    "loop": lambda handler, _: handler.redirect_to(handler.path),
    "slow": _DemoHandler.slow,
    "busy": _DemoHandler.busy,
    "down": lambda handler, _: handler.send_text(HTTPStatus.SERVICE_UNAVAILABLE, "down for ever"),
    "gone": lambda handler, _: handler.send_text(HTTPStatus.GONE, "gone"),
    "noai": lambda handler, path: handler.send_file(path, {"X-Robots-Tag": "noai"}),
    "mislabelled": lambda handler, path: handler.send_file(path, {"Content-Type": "text/plain; charset=utf-8"}),
    "html": _DemoHandler.html,
    "cut": _DemoHandler.cut,
    "huge": _DemoHandler.huge,
    "endless": _DemoHandler.endless,
}
