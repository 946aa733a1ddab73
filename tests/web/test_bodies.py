"""Bodies of pictures: encoded, and with a framing that is wrong by some bytes."""

from __future__ import annotations

import gzip
import zlib

import pytest

from mmdata.download.images import fetch_image
from tests.support.hostile_server import answer, jpeg

PICTURE = jpeg(1)
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(PICTURE), PICTURE)
GZIPPED = gzip.compress(PICTURE)


@pytest.mark.parametrize(
    "reply",
    [
        *(answer(PICTURE, Content_Encoding=name) for name in ("none", "utf-8", "binary", "aws-chunked", "image/jpeg")),
        answer(GZIPPED, Content_Encoding="gzip"),
        answer(zlib.compress(PICTURE), Content_Encoding="deflate"),
        answer(gzip.compress(GZIPPED), Content_Encoding="gzip, gzip"),
        answer(PICTURE, Content_Encoding="gzip"),
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GZIPPED), GZIPPED),
    ],
)
def test_a_picture_is_decoded_before_it_is_hashed(web, settings, reply):
    web.files["/x"] = reply
    image = fetch_image(web.url("/x"), settings())
    assert image.failure is None
    assert image.size_bytes == len(PICTURE)


@pytest.mark.parametrize(
    "reply",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (len(PICTURE) + 7) + PICTURE,
        CHUNKED + CHUNK,
        CHUNKED + CHUNK + b"0",
        CHUNKED + CHUNK + b"nonsense\r\n",
        HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE + b"more",
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + GZIPPED[:-8],
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (len(GZIPPED) + 9) + GZIPPED,
    ],
)
def test_a_picture_that_is_whole_is_stored_although_its_framing_is_wrong(web, settings, reply):
    web.files["/x"] = reply
    image = fetch_image(web.url("/x"), settings())
    assert image.failure is None
    assert image.size_bytes == len(PICTURE)
    assert web.hits["/x"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE[: len(PICTURE) // 2],
        CHUNKED + b"%x\r\n" % len(PICTURE) + PICTURE[: len(PICTURE) // 2],
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + GZIPPED[: len(GZIPPED) // 2],
    ],
)
def test_half_a_picture_is_truncated_and_asked_for_again(web, settings, reply):
    web.files["/x"] = reply
    failure = fetch_image(web.url("/x"), settings(retries=1, deadline_s=5)).failure
    assert failure is not None
    assert (failure.error, failure.may_pass) == ("truncated", True)
    assert web.hits["/x"] == 2


def test_a_body_ends_where_its_length_says(web, settings):
    """As in browsers; the rest of the connection is not read, so half a picture stays one."""
    web.files["/x"] = HEAD + b"Content-Length: %d\r\n\r\n" % (len(PICTURE) // 2) + PICTURE
    failure = fetch_image(web.url("/x"), settings()).failure
    assert failure is not None
    assert failure.error == "undecodable"


def test_a_bomb_in_an_encoding_is_too_large(web, settings):
    web.files["/x"] = answer(gzip.compress(bytes(30_000_000)), Content_Encoding="gzip")
    failure = fetch_image(web.url("/x"), settings(max_bytes=1_000_000)).failure
    assert failure is not None
    assert failure.error == "too_large"


@pytest.mark.parametrize(
    "reply", [answer(b""), HEAD + b"\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", answer(b"", Content_Encoding="gzip")]
)
def test_a_body_without_a_byte_is_empty(web, settings, reply):
    web.files["/x"] = reply
    failure = fetch_image(web.url("/x"), settings()).failure
    assert failure is not None
    assert (failure.error, failure.status) == ("empty", "failed_to_download")
