"""FetchError: why a fetch failed, as a short class to count by and a message. Used by all that fetches or decodes."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error

from mmdata.display import cut, without_credentials
from mmdata.failure_classes import DECODING_ERRORS, HOST_BLOCKED, HOST_DOWN, RATE_LIMIT_CODES, TEMPORARY_CODES
from mmdata.web.header_values import retry_after_s

REFUSALS = frozenset(
    {
        *("bad_row", "bad_scheme", "bad_url", "userinfo", "bad_port", "private_address", "downgrade"),
        *("robots", "bomb", "hdr", "too_long", "site", "playlist", "voice", "opt_out"),
    }
)
"""Error classes whose status is `refused`: our own rules forbid the medium, whatever the server would answer."""

REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
_RETRYABLE_HTTP_CODES = RATE_LIMIT_CODES | TEMPORARY_CODES

MAX_DETAIL_CHARS = 500
"""A longer message is cut: strangers write status lines and error texts, and a table keeps the detail of each row."""

MAX_MESSAGE_CHARS = 65_536  # what is read of a message, to search it for credentials before it is cut


class FetchError(Exception):
    """A fetch that ended without a usable medium.

    Args:
        error: the error class, such as `http_404` or `private_address`; failures are counted by it.
        detail: the message; credentials are removed from it, and it is cut to MAX_DETAIL_CHARS.
        may_pass: a later try may succeed.
        retry_after_s: how many seconds the server asked us to wait.
    """

    def __init__(self, error: str, detail: str, may_pass: bool = False, retry_after_s: float | None = None) -> None:
        self.error = error
        self.detail = cut(without_credentials(detail[:MAX_MESSAGE_CHARS]), MAX_DETAIL_CHARS)
        self.may_pass, self.retry_after_s = may_pass, retry_after_s
        super().__init__(f"{error}: {self.detail}")

    @property
    def status(self) -> str:
        """The status that the media table gives a sample that failed so."""
        if self.error in REFUSALS:
            return "refused"
        return "failed_to_resize" if self.error in DECODING_ERRORS else "failed_to_download"


def url_was_contacted(failure: FetchError | None) -> bool:
    """Whether a fetch that ended so reached its URL; it did not if the host was skipped for earlier failures."""
    return failure is None or failure.error not in (HOST_DOWN, HOST_BLOCKED)


def as_fetch_error(error: BaseException) -> FetchError:
    """Turn an exception of urllib, http.client, ssl or a socket into a FetchError."""
    if isinstance(error, FetchError):
        return error
    if isinstance(error, urllib.error.HTTPError):
        if error.code in REDIRECT_CODES and error.headers.get("Location"):
            return FetchError("too_many_redirects", f"HTTP {error.code}: {error.reason}")
        wait = retry_after_s(error.headers.get("Retry-After") if error.headers else None)
        return FetchError(
            f"http_{error.code}", f"HTTP {error.code} {error.reason}", error.code in _RETRYABLE_HTTP_CODES, wait
        )
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return as_fetch_error(error.reason)
    text = f"{type(error).__name__}: {error}"
    classes: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, bool], ...] = (
        (ssl.SSLCertVerificationError, "tls_certificate", False),
        (ssl.SSLError, "tls", True),
        (TimeoutError, "timeout", True),
        (ConnectionRefusedError, "connection_refused", True),
        ((ConnectionError, http.client.RemoteDisconnected), "connection_reset", True),
        (http.client.IncompleteRead, "truncated", True),
        ((http.client.InvalidURL, UnicodeError), "bad_url", False),
        (http.client.HTTPException, "bad_response", False),
        (socket.gaierror, "dns", True),
        (OSError, "network", True),
        (ValueError, "bad_response", True),  # a header that cannot be read; `check_url` has accepted the URL
    )
    for kinds, name, may_pass in classes:
        if isinstance(error, kinds):
            return FetchError(name, text, may_pass)
    return FetchError("unexpected", text)
