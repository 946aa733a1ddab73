"""Heads of responses as strangers write them, read by the opener from a raw server."""

from __future__ import annotations

import http.client
import io

import pytest

from mmdata.download.images import fetch_image
from mmdata.web.failures import FetchError
from mmdata.web.limits import MAX_HEADER_BYTES
from mmdata.web.responses import MAX_HEADER_CHARS, MAX_REASON_CHARS, read_head
from tests.support.hostile_server import jpeg

PICTURE = jpeg(1)
LENGTH = b"Content-Length: %d\r\n" % len(PICTURE)
CHUNKS = b"%x\r\n%b\r\n" % (len(PICTURE), PICTURE)
HEADS = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
    "three interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
    "300 headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(300)) + LENGTH,
    "a line without a colon": b"HTTP/1.1 200 OK\r\nno colon here\r\n" + LENGTH,
    "a header without a name": b"HTTP/1.1 200 OK\r\n: y\r\n" + LENGTH,
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : %d\r\n" % len(PICTURE),
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n" + LENGTH,
    "line feeds only": b"HTTP/1.1 200 OK\n" + LENGTH.replace(b"\r", b""),
    "no phrase": b"HTTP/1.1 200\r\n" + LENGTH,
    "a long phrase": b"HTTP/1.1 200 " + b"://a:b" * 10_000 + b"\r\n" + LENGTH,
    "an old protocol": b"HTTP/1.0 200 OK\r\n",
    "a protocol of radio stations": b"ICY 200 OK\r\n",
    "two lengths that agree": b"HTTP/1.1 200 OK\r\n" + LENGTH + LENGTH,
    "two lengths that differ": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + LENGTH,
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n",
    "a length of 5,000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n",
    "a whole range": b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-%d/%d\r\n" % (len(PICTURE) - 1, len(PICTURE)),
    "an odd range": b"HTTP/1.1 206 Partial\r\nContent-Range: bytes \xb2-/\r\n" + LENGTH,
    "odd dates": b"HTTP/1.1 200 OK\r\nDate: Mon, 99 Foo 99999\r\nAge: -1e999\r\nExpires: \xff\r\n" + LENGTH,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_picture_comes_whatever_the_head_looks_like(web, settings, head):
    web.files["/x"] = head + (b"\n" if b"\r" not in head else b"\r\n") + PICTURE
    image = fetch_image(web.url("/x"), settings())
    assert image.failure is None
    assert image.size_bytes == len(PICTURE)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b" chunked , chunked", b"identity, chunked"])
def test_chunks_are_read_however_they_are_announced(web, settings, coding):
    web.files["/x"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\nContent-Length: 5\r\n\r\n" % coding + CHUNKS + b"0\r\n\r\n"
    )
    assert fetch_image(web.url("/x"), settings()).size_bytes == len(PICTURE)


@pytest.mark.parametrize(
    ("head", "error", "may_pass"),
    [
        (b"", "connection_reset", True),
        (b"\r\n\r\n", "bad_response", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "bad_response", False),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "bad_response", False),
        (b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n", "bad_response", False),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "bad_response", False),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: Mon, 01 Jan 99999 00:00:00 GMT\r\n\r\n", "http_503", True),
        (b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-99/200\r\n\r\n" + PICTURE, "truncated", True),
        (b"HTTP/1.1 206 Part\r\nContent-Range: bytes 100-199/200\r\n\r\n" + PICTURE, "truncated", True),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEADER_BYTES + b"\r\n\r\n", "too_large", False),
        (b"HTTP/1.1 200 OK\r\nno colon\r\nX-Robots-Tag: noai\r\n\r\n", "robots", False),
        (b"HTTP/1.1 404 " + b"://a:b" * 10_000 + b"\r\n\r\n", "http_404", False),
    ],
)
def test_what_cannot_be_read_has_an_error_class(web, settings, head, error, may_pass):
    web.files["/x"] = head
    failure = fetch_image(web.url("/x"), settings()).failure
    assert failure is not None
    assert (failure.error, failure.may_pass) == (error, may_pass)
    assert len(failure.detail) < 300


def test_values_are_cut_and_continued_lines_are_joined():
    head = read_head(
        io.BytesIO(
            b"HTTP/1.1 404 %b\r\nA: 1\r\n\t2\r\nB: %b\r\n  \r\nC: \x00\x1b\r\n\r\nbody" % (b"r" * 999, b"b" * 99_999)
        )
    )
    assert (head.version, head.status, head.reason) == ("HTTP/1.1", 404, "r" * MAX_REASON_CHARS)
    assert (head.headers["a"], len(head.headers["B"]), head.headers["C"]) == ("1 2", MAX_HEADER_CHARS, "")


def test_a_closed_connection_is_told_from_an_unreadable_answer():
    with pytest.raises(http.client.RemoteDisconnected):
        read_head(io.BytesIO(b"HTTP/1.1 100 Continue\r\n\r\n"))
    with pytest.raises(http.client.BadStatusLine):
        read_head(io.BytesIO(b"<html>"))
    with pytest.raises(FetchError, match="too_large"):
        read_head(io.BytesIO(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000))
