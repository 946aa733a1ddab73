"""Follows redirects: each target is checked as any URL is, and cookies hold within one chain, for their own host."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

from mmdata.urls import canonical_url
from mmdata.web.failures import FetchError
from mmdata.web.limits import current_fetch

MAX_REDIRECTS = 10  # as many as urllib, and so img2dataset, follows
MAX_COOKIES, MAX_COOKIE_CHARS = 50, 4096  # of one host in one chain, and of one cookie
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+=[\x21-\x3a\x3c-\x7e]*")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects.

    Args:
        check_url: refuses a URL by raising FetchError.
        allow_downgrade: follow a redirect from https to http.
    """

    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, check_url: Callable[[str], None], allow_downgrade: bool) -> None:
        self._check_url, self._allow_downgrade = check_url, allow_downgrade

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self._check_url(newurl)
        leaves_tls = urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme == "http"
        if leaves_tls and not self._allow_downgrade:
            raise FetchError("downgrade", "redirected from https to http (download.allow_downgrade is false)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = headers.get("location") or headers.get("uri") or ""
        try:
            if not target.isascii():
                target = _ascii_target(req.full_url, target)
                headers.replace_header("location" if "location" in headers else "uri", target)
            scheme = urlsplit(urljoin(req.full_url, target)).scheme
        except ValueError as error:
            raise FetchError("bad_url", f"redirected to {target}: {error}") from None
        if scheme not in ("http", "https"):
            raise FetchError("bad_scheme", f"redirected to {scheme}: only http and https are fetched")
        fp.read = _no_body  # urllib would read it, and fail if it breaks off; browsers don't look at it
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class ChainCookies(urllib.request.BaseHandler):
    """Sends back the cookies that a host has set earlier in the same fetch: some pictures come only with them.

    Nothing is kept between two fetches, nothing is sent to another host, and what was set over TLS stays within TLS.
    """

    handler_order = 400  # after the headers of the configuration

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        cookies = current_fetch().cookies.get(request.host, {})
        pairs = [pair for pair, needs_tls in cookies.values() if request.type == "https" or not needs_tls]
        if pairs:
            configured = request.get_header("Cookie")
            request.add_unredirected_header("Cookie", "; ".join([*([configured] if configured else []), *pairs]))
        return request

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        cookies = current_fetch().cookies.setdefault(request.host, {})
        for value in response.headers.get_all("Set-Cookie", []):
            pair = value.partition(";")[0].strip()
            name = pair.partition("=")[0]
            is_usable = len(pair) <= MAX_COOKIE_CHARS and _COOKIE.fullmatch(pair)
            if is_usable and (name in cookies or len(cookies) < MAX_COOKIES):
                cookies[name] = (pair, request.type == "https")
        return response

    https_request, https_response = http_request, http_response


def _ascii_target(url: str, target: str) -> str:
    """The target of a redirect whose Location is not ASCII: it is read as UTF-8, as in browsers, else as Latin-1."""
    try:
        return canonical_url(urljoin(url, target.encode("latin-1").decode()))
    except UnicodeError:
        return target


def _no_body(*_: int) -> bytes:
    return b""
