"""Error classes, the header Retry-After, and details without credentials."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
from email.message import Message

import pytest

from mmdata.samples import STATUSES
from mmdata.web.failures import MAX_DETAIL_CHARS, FetchError, as_fetch_error, url_was_contacted


def test_details_carry_no_credentials():
    error = FetchError("x", "http://user:secret@host/a -> https://token@other/b")
    assert error.detail == "http://host/a -> https://other/b"


def test_a_detail_is_short_however_long_the_message_is():
    long = FetchError("x", "https://me:secret@host/?sig=secret " + "y" * 10_000_000)
    assert len(long.detail) == MAX_DETAIL_CHARS + 1
    assert long.detail.startswith("https://host/?sig=… yyy")
    assert len(FetchError("x", "y" * MAX_DETAIL_CHARS).detail) == MAX_DETAIL_CHARS


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
        (ValueError("a number of 5,000 digits"), "bad_response", True),
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
