"""Error classes, the header Retry-After, and details without credentials."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
from datetime import UTC, datetime
from email.message import Message

import pytest

from mmdata.samples import STATUSES
from mmdata.web.failures import FetchError, as_fetch_error, retry_after_s, url_was_contacted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        ("-5", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        ("Thu, 01 Jan 2026 00:02:00 -0000", 120.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Thu, 99 Jan 2026 00:02:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(header, seconds):
    assert retry_after_s(header, NOW) == seconds


def test_details_carry_no_credentials():
    error = FetchError("x", "http://user:secret@host/a -> https://token@other/b")
    assert error.detail == "http://host/a -> https://other/b"


@pytest.mark.parametrize(
    ("error", "error_class", "may_pass"),
    [
        (urllib.error.URLError(ConnectionRefusedError(111, "refused")), "connection_refused", True),
        (urllib.error.URLError(ssl.SSLCertVerificationError("self-signed")), "tls_certificate", False),
        (TimeoutError("timed out"), "timeout", True),
        (http.client.RemoteDisconnected("closed"), "connection_reset", True),
        (http.client.IncompleteRead(b"half"), "truncated", True),
        (http.client.BadStatusLine("?"), "bad_response", False),
        (UnicodeError("idna"), "bad_url", False),
        (OSError(101, "unreachable"), "network", True),
        (KeyError("x"), "unexpected", False),
        (urllib.error.HTTPError("http://a/", 503, "Busy", Message(), None), "http_503", True),
        (urllib.error.HTTPError("http://a/", 404, "Gone", Message(), None), "http_404", False),
    ],
)
def test_exceptions_become_error_classes(error: Exception, error_class: str, may_pass: bool) -> None:
    failure = as_fetch_error(error)
    assert (failure.error, failure.may_pass) == (error_class, may_pass)
    assert as_fetch_error(failure) is failure


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("private_address", "refused"),
        ("bomb", "refused"),
        ("undecodable", "failed_to_resize"),
        ("dns", "failed_to_download"),
    ],
)
def test_an_error_class_decides_the_status_of_the_media_table(error: str, status: str) -> None:
    assert FetchError(error, "").status == status
    assert status in STATUSES


def test_a_host_that_is_skipped_was_not_contacted() -> None:
    assert url_was_contacted(None)
    assert url_was_contacted(FetchError("dns", ""))
    assert not url_was_contacted(FetchError("host_down", ""))
