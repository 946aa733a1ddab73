"""The guarded URL opener, through which every fetch goes, img2dataset's and yt-dlp's included, in every thread.

It speaks http and https only. It connects to the very address that it checked, so a name that changes its answer
between check and connection gains nothing. It checks every redirect in the same way and uses no proxy but that of the
configuration. It ends a fetch at a deadline or a number of bytes, however slowly or endlessly the server answers: the
sockets enforce both (see `mmdata.web.limits`), below the parsing of headers and chunks.
"""

from __future__ import annotations

import functools
import http.client
import re
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mmdata.config import Download
from mmdata.urls import ascii_host, canonical_url
from mmdata.web.addresses import (
    AllowList,
    Resolver,
    allowed_addresses,
    literal_address,
    resolve_within,
    system_resolver,
)
from mmdata.web.bodies import Body
from mmdata.web.failures import FetchError
from mmdata.web.header_values import content_range, validator
from mmdata.web.limits import (
    Fetch,
    LimitedSocket,
    LimitedTLSSocket,
    active_fetch,
    current_fetch,
    recording_failure,
)
from mmdata.web.ports import port_refusal
from mmdata.web.proxy import Proxy
from mmdata.web.redirects import ChainCookies, Redirects
from mmdata.web.request_headers import request_headers
from mmdata.web.responses import Response
from mmdata.web.robots import disallowing_directive, tdm_reservation

DNS_CACHE_S = 60.0
DNS_CACHE_NAMES = 10_000
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_AMBIGUOUS_CHARACTER = re.compile(r"[%\\\s<>^`{|}\"]")


@dataclass
class Guard:
    """The rules by which URLs, hosts and addresses are accepted; one object for the process.

    Args:
        download: the settings, the list of allowed hosts included.
        resolve: looks a name up; tests replace it.
    """

    download: Download
    resolve: Resolver = system_resolver
    _dns_cache: dict[tuple[str, int], tuple[float, list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.allowed = AllowList(self.download.allow_hosts)
        self.proxy = Proxy.from_url(self.download.proxy) if self.download.proxy is not None else None

    def check_url(self, url: str) -> None:
        """Refuse a URL for its text alone: scheme, host, login, port. Raises FetchError."""
        try:
            parts = urlsplit(url)
            port = parts.port
            ascii_host(parts.hostname or "")
        except ValueError as error:
            raise FetchError("bad_url", f"{url}: {error}") from None
        if control := _CONTROL_CHARACTER.search(url):
            raise FetchError("bad_url", f"a control character, U+{ord(control.group()):04X}, in the URL")
        if parts.scheme not in ("http", "https"):
            kind = "bad_scheme" if parts.scheme else "bad_url"
            raise FetchError(kind, f"{parts.scheme or 'no scheme'}: only http and https are fetched")
        if not parts.hostname:
            raise FetchError("bad_url", f"{url}: no host")
        if parts.username is not None or parts.password is not None:
            raise FetchError("userinfo", f"{parts.hostname}: the URL carries a user name or password")
        if ambiguous := _AMBIGUOUS_CHARACTER.search(parts.netloc):
            # urllib decodes %3A to a colon, browsers read a backslash as a slash: check and request might differ
            raise FetchError(
                "bad_url", f"{ambiguous.group()!r} in the host of the URL: programs disagree on what it means there"
            )
        self._check_port(parts.hostname, _DEFAULT_PORTS[parts.scheme] if port is None else port)

    def _check_port(self, host: str, port: int) -> None:
        refusal = port_refusal(port, self.download.ports, self._is_allowed_host(host))
        if refusal is not None:
            raise FetchError("bad_port", f"{host}:{port}: {refusal}")

    def _is_allowed_host(self, host: str) -> bool:
        literal = literal_address(host)
        return self.allowed.has_name(host) or (literal is not None and self.allowed.has_address(literal))

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to an address of the host that passes the check. Raises FetchError, OSError."""
        self._check_port(host, port)  # again, because this is the port of the connection, however the URL was read
        fetch = current_fetch()
        last_error: OSError | None = None
        for address in self._addresses(host, port, fetch):
            next_hop, next_port = self._next_hop(address, port, fetch)
            family = socket.AF_INET6 if ":" in next_hop else socket.AF_INET
            connection = LimitedSocket(family, socket.SOCK_STREAM)
            try:
                with fetch.waiting(connection):
                    connection.connect((next_hop, next_port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.proxy is not None:
                    self.proxy.tunnel(connection, address, port)
            except OSError as error:
                connection.close()
                last_error = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise last_error or OSError(f"{host}: no address to connect to")

    def _next_hop(self, address: str, port: int, fetch: Fetch) -> tuple[str, int]:
        """Address and port to connect to: those of the proxy, which may be private, or of the target itself."""
        if self.proxy is None:
            return address, port
        proxy_addresses = resolve_within(system_resolver, self.proxy.host, self.proxy.port, fetch.wait_limit_s())
        return proxy_addresses[0], self.proxy.port

    def _addresses(self, host: str, port: int, fetch: Fetch) -> list[str]:
        expires_at, cached_addresses = self._dns_cache.get((host, port), (0.0, []))
        if expires_at > time.monotonic():
            return cached_addresses

        def look_up(name: str, port: int) -> list[str]:
            return resolve_within(self.resolve, name, port, fetch.wait_limit_s())

        addresses = allowed_addresses(host, port, self.allowed, look_up)
        if len(self._dns_cache) >= DNS_CACHE_NAMES:
            self._dns_cache.clear()
        self._dns_cache[host, port] = (time.monotonic() + DNS_CACHE_S, addresses)
        return addresses


class _Connection(http.client.HTTPConnection):
    response_class = Response

    def __init__(self, host: str, *, guard: Guard, **options: Any) -> None:
        super().__init__(host, **options)
        self._guard = guard

    def connect(self) -> None:
        self.sock = self._guard.connect(self.host, self.port)


class _TLSConnection(http.client.HTTPSConnection):
    response_class = Response

    def __init__(self, host: str, *, guard: Guard, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(host, context=context, **options)
        self._guard, self._tls = guard, context

    def connect(self) -> None:
        plain = self._guard.connect(self.host, self.port)
        with current_fetch().waiting(plain):
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https through guarded connections, and checks every request and response."""

    handler_order = 100

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.tls = ssl.create_default_context()
        self.tls.sslsocket_class = LimitedTLSSocket
        super().__init__(context=self.tls)

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        self.guard.check_url(request.full_url)
        for name, value in request_headers(self.guard.download, request, current_fetch()).items():
            request.add_unredirected_header(name, value)  # the next host of a chain gets its own headers
        return request

    https_request = http_request

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, guard=self.guard), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_TLSConnection, guard=self.guard, context=self.tls), request)

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if 200 <= response.status < 300:
            fetch = current_fetch()
            try:
                self._check_headers(response, is_part_wanted=request.has_header("Range"))
                fetch.etag, fetch.final_url = validator(response.headers.get("ETag")), request.full_url
                response.read = Body(response, fetch).read
            except FetchError:
                response.close()
                raise
        return response

    https_response = http_response

    def _check_headers(self, response: Any, is_part_wanted: bool) -> None:
        """Refuse an answer for its headers, before its body is read. Raises FetchError."""
        download, headers, max_bytes = self.guard.download, response.headers, current_fetch().max_bytes
        directive = disallowing_directive(headers.get_all("X-Robots-Tag", []), download.user_agent)
        reservation = tdm_reservation(headers)
        if download.respect_robots and (directive is not None or reservation is not None):
            raise FetchError("robots", reservation or f"X-Robots-Tag: {directive}")
        if response.length is not None and response.length > max_bytes:
            raise FetchError("too_large", f"Content-Length {response.length} is over the limit of {max_bytes} bytes")
        part = content_range(headers.get("Content-Range")) if response.status == 206 and not is_part_wanted else None
        if part is not None and (part.start != 0 or (part.total is not None and part.stop != part.total)):
            raise FetchError("truncated", f"a part of the file came, which was not asked for: {part}", may_pass=True)


class GuardedOpener(urllib.request.OpenerDirector):
    """An opener with the guard's handlers only. It records what goes wrong in the thread's fetch.

    Args:
        cookies: what keeps cookies; by default they are forgotten with the end of a fetch.
    """

    def __init__(self, guard: Guard, cookies: urllib.request.BaseHandler | None = None) -> None:
        super().__init__()
        self.guard = guard
        redirects = Redirects(guard.check_url, guard.download.allow_downgrade)
        errors = (urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor())
        for handler in (_Handler(guard), cookies or ChainCookies(), redirects, *errors):
            self.add_handler(handler)

    def open(self, fullurl: Any, data: Any = None, timeout: float | None = None) -> Any:
        fetch = active_fetch()
        if fetch is None:
            return _plain_opener().open(fullurl, data, timeout)
        with recording_failure(fetch):
            url = fullurl if isinstance(fullurl, str) else fullurl.full_url
            self.guard.check_url(url)  # before urllib picks a handler by scheme
            if not url.isascii():  # http.client would write the host by IDNA 2003, and refuse other letters in the path
                url = canonical_url(url)
                if isinstance(fullurl, str):
                    fullurl = url
                else:
                    fullurl.full_url = url
            return super().open(fullurl, data, fetch.wait_limit_s())


@functools.cache
def _plain_opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener()


def install(guard: Guard) -> None:
    """Make `urllib.request.urlopen` use this guard in the whole process, within `fetching`.

    Threads outside of `fetching` (one that downloads a model, for example) keep urllib's own opener.
    """
    urllib.request.install_opener(GuardedOpener(guard))
