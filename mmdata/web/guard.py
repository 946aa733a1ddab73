"""The guarded URL opener: what img2dataset's `urlopen` goes through, in every thread of the process.

It speaks http and https only, connects to the very address that it checked (so a name that changes its answer between
the check and the connection gains nothing), checks every redirect in the same way, uses no proxy but that of the
configuration, and ends a fetch at a deadline or a byte cap however slowly or endlessly the server talks: both are
enforced at the socket, below the parsing of headers and chunks.
"""

from __future__ import annotations

import functools
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mmdata.config import Download
from mmdata.web.addresses import (
    AllowList,
    Resolver,
    allowed_addresses,
    literal_address,
    resolve_within,
    system_resolver,
)
from mmdata.web.failures import FetchError, as_fetch_error
from mmdata.web.limits import BoundSocket, BoundTLSSocket, Fetch, active_fetch, current_fetch
from mmdata.web.ports import refusal
from mmdata.web.proxy import Proxy
from mmdata.web.robots import disallows

MAX_REDIRECTS = 5
DNS_CACHE_S = 60.0
DNS_CACHE_NAMES = 10_000
_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MISREAD = re.compile(r"[%\\\s<>^`{|}\"]")


@dataclass
class Guard:
    """The rules and what they need to be applied: one for the process.

    Args:
        download: the settings; the allow-list comes from them.
        resolve: how names are looked up; replaced in tests.
    """

    download: Download
    resolve: Resolver = system_resolver
    _answers: dict[tuple[str, int], tuple[float, list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.allow = AllowList(self.download.allow_hosts)
        self.proxy = Proxy.of(self.download.proxy) if self.download.proxy is not None else None

    def check_url(self, url: str) -> None:
        """Refuse what can be told from the URL alone. Raises FetchError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise FetchError("bad_url", f"{url}: {error}") from None
        if control := _CONTROL.search(url):
            raise FetchError("bad_url", f"a control character, U+{ord(control.group()):04X}, in the URL")
        if parts.scheme not in ("http", "https"):
            kind = "bad_scheme" if parts.scheme else "bad_url"
            raise FetchError(kind, f"{parts.scheme or 'no scheme'}: only http and https are fetched")
        if not parts.hostname:
            raise FetchError("bad_url", f"{url}: no host")
        if parts.username is not None or parts.password is not None:
            raise FetchError("userinfo", f"{parts.hostname}: the URL carries a user name or password")
        if strange := _MISREAD.search(parts.netloc):
            # urllib decodes %3A to a colon, browsers take a backslash for a slash: one is checked, another asked
            raise FetchError("bad_url", f"{strange.group()!r} in the host of the URL, which not all readers read alike")
        self._check_port(parts.hostname, _PORTS[parts.scheme] if port is None else port)

    def _check_port(self, host: str, port: int) -> None:
        why = refusal(port, self.download.ports, self._is_allowed_host(host))
        if why is not None:
            raise FetchError("bad_port", f"{host}:{port}: {why}")

    def _is_allowed_host(self, host: str) -> bool:
        literal = literal_address(host)
        return self.allow.has_name(host) or (literal is not None and self.allow.has_address(literal))

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to an address of the host that passed the check."""
        self._check_port(host, port)  # again: here it is the one that is connected to, however the URL was read
        fetch = current_fetch()
        last: OSError | None = None
        for address in self._addresses(host, port, fetch):
            next_hop, next_port = self._next_hop(address, port, fetch)
            family = socket.AF_INET6 if ":" in next_hop else socket.AF_INET
            connection = BoundSocket(family, socket.SOCK_STREAM)
            try:
                with fetch.waiting(connection):
                    connection.connect((next_hop, next_port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.proxy is not None:
                    self.proxy.tunnel(connection, address, port)
            except OSError as error:
                connection.close()
                last = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise last or OSError(f"{host}: no address to connect to")

    def _next_hop(self, address: str, port: int, fetch: Fetch) -> tuple[str, int]:
        """Where the connection to an address goes first: to the proxy, which may well be private, or to itself."""
        if self.proxy is None:
            return address, port
        found = resolve_within(system_resolver, self.proxy.host, self.proxy.port, fetch.patience_s())
        return found[0], self.proxy.port

    def _addresses(self, host: str, port: int, fetch: Fetch) -> list[str]:
        known = self._answers.get((host, port))
        if known is not None and known[0] > time.monotonic():
            return known[1]

        def look_up(name: str, number: int) -> list[str]:
            return resolve_within(self.resolve, name, number, fetch.patience_s())

        addresses = allowed_addresses(host, port, self.allow, look_up)
        if len(self._answers) >= DNS_CACHE_NAMES:
            self._answers.clear()
        self._answers[host, port] = (time.monotonic() + DNS_CACHE_S, addresses)
        return addresses


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, guard: Guard, **options: Any) -> None:
        super().__init__(host, **options)
        self._guard = guard

    def connect(self) -> None:
        self.sock = self._guard.connect(self.host, self.port)


class _TLSConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, guard: Guard, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(host, context=context, **options)
        self._guard, self._tls = guard, context

    def connect(self) -> None:
        plain = self._guard.connect(self.host, self.port)
        with current_fetch().waiting(plain):
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https through guarded connections, and looks at every request and response on the way."""

    handler_order = 100

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.tls = ssl.create_default_context()
        self.tls.sslsocket_class = BoundTLSSocket
        super().__init__(context=self.tls)

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        self.guard.check_url(request.full_url)
        request.add_header("User-Agent", self.guard.download.user_agent)
        request.add_header("Accept-Encoding", "identity")
        return request

    https_request = http_request

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, guard=self.guard), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(
            functools.partial(_TLSConnection, guard=self.guard, context=self.tls),
            request,
        )

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if 200 <= response.status < 300:
            try:
                self._accept(response)
            except FetchError:
                response.close()
                raise
        return response

    https_response = http_response

    def _accept(self, response: Any) -> None:
        """Judge an answer by its headers, before its body is read."""
        download, headers, fetch = self.guard.download, response.headers, current_fetch()
        length, encoding = headers.get("Content-Length", ""), headers.get("Content-Encoding", "").strip().lower()
        directive = disallows(headers.get_all("X-Robots-Tag", []), download.user_agent)
        if directive is not None and download.respect_robots:
            raise FetchError("robots", f"X-Robots-Tag: {directive}")
        if length.isdigit() and int(length) > fetch.max_bytes:
            raise FetchError("too_large", f"Content-Length {length} is over the limit of {fetch.max_bytes} bytes")
        if encoding not in ("", "identity"):
            raise FetchError("bad_response", f"Content-Encoding {encoding!r}, though none was asked for")
        fetch.etag = headers.get("ETag")
        response.read = functools.partial(_read_within, response.read, fetch)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.guard.check_url(newurl)
        leaves_tls = urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme == "http"
        if leaves_tls and not self.guard.download.allow_downgrade:
            raise FetchError("downgrade", "redirected from https to http (download.allow_downgrade is false)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = headers.get("location") or headers.get("uri") or ""
        scheme = urlsplit(target).scheme
        if scheme and scheme not in ("http", "https"):
            raise FetchError("bad_scheme", f"redirected to {scheme}: only http and https are fetched")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class GuardedOpener(urllib.request.OpenerDirector):
    """The opener: nothing in it but the guard's handlers, and what goes wrong is noted on the thread's fetch."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.guard = guard
        errors = (urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor())
        for handler in (_Handler(guard), _Redirects(guard), *errors):
            self.add_handler(handler)

    def open(self, fullurl: Any, data: Any = None, timeout: float | None = None) -> Any:
        fetch = active_fetch()
        if fetch is None:
            return _plain_opener().open(fullurl, data, timeout)
        with _noting(fetch):
            url = fullurl if isinstance(fullurl, str) else fullurl.full_url
            self.guard.check_url(url)  # before urllib picks a handler by scheme
            return super().open(fullurl, data, fetch.patience_s())


@functools.cache
def _plain_opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener()


def install(guard: Guard) -> None:
    """Make this guard what `urllib.request.urlopen` uses in the whole process, within `fetching`.

    Threads outside of `fetching` (a model's weights being fetched, say) get urllib's own opener, as before.
    """
    urllib.request.install_opener(GuardedOpener(guard))


@contextmanager
def _noting(fetch: Fetch) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        fetch.failure = as_fetch_error(error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # its connection would stay open until the garbage is collected
        raise


def _read_within(read: Callable[..., bytes], fetch: Fetch, *args: int) -> bytes:
    with _noting(fetch):
        body = read(*args)
        if len(body) > fetch.max_bytes:
            raise FetchError("too_large", f"the body is over the limit of {fetch.max_bytes} bytes")
        return body
