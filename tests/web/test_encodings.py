"""Encoded bodies: gzip, deflate, br and zstd, one over another, broken, too large, or not encoded at all."""

from __future__ import annotations

import gzip
import http.client
import time
import zlib

import pyarrow as pa
import pytest

from mmdata.web.encodings import decoded, encodings_of
from mmdata.web.failures import FetchError
from mmdata.web.limits import Fetch

TEXT = b"".join(b"line %d of a body that compresses well\n" % number for number in range(20_000))
PLAIN = b"\xff\xd8\xff\xe0 begins as a JPEG does" * 50


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def by_arrow(data: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


ENCODED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT[:300_000]) + gzip.compress(TEXT[300_000:]) + bytes(40),
    "deflate": zlib.compress(TEXT),
    "Deflate ": raw_deflate(TEXT),
    "br": by_arrow(TEXT, "brotli"),
    "zstd": by_arrow(TEXT, "zstd"),
    "gzip, gzip": gzip.compress(gzip.compress(TEXT)),
    "gzip, br": by_arrow(gzip.compress(TEXT), "brotli"),
    "deflate,zstd": by_arrow(zlib.compress(TEXT), "zstd"),
    "gzip, aws-chunked": gzip.compress(TEXT),
}


def fetch(max_bytes: int = 10_000_000, seconds: float = 30) -> Fetch:
    return Fetch(time.monotonic() + seconds, max_bytes, 1, max_bytes)


def body(data: bytes, encoding: str, step: int = 1000, **limits: float) -> bytes:
    blocks = (data[start : start + step] for start in range(0, len(data), step))
    return b"".join(decoded(blocks, encodings_of([encoding]), fetch(**limits)))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [1, 1000, 10_000_000])
@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoded_body_is_decoded(encoding, step):
    if step > 1 or len(ENCODED[encoding]) < 100_000:
        assert body(ENCODED[encoding], encoding, step) == TEXT


@pytest.mark.parametrize(
    "value", ["", "none", "identity", "utf-8", "binary", "aws-chunked,", "image/jpeg", "x/y", "\xff,²"]
)
def test_a_name_that_is_no_encoding_means_none(value):
    assert encodings_of([value]) == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br", "br, gzip"])
@pytest.mark.parametrize("step", [7, 100_000])
def test_a_body_that_is_not_encoded_after_all_is_taken_as_it_is(encoding, step):
    assert body(PLAIN, encoding, step) == PLAIN
    assert body(b"", encoding, step) == b""


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_body_that_breaks_off_is_incomplete(encoding):
    pieces = []
    with pytest.raises(http.client.IncompleteRead):
        pieces += decoded(
            iter([ENCODED[encoding][: len(ENCODED[encoding]) * 2 // 3]]), encodings_of([encoding]), fetch()
        )
    assert TEXT.startswith(b"".join(pieces))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_damage_behind_the_beginning_is_a_failure_that_may_pass(encoding):
    noise = bytearray(ENCODED[encoding])
    noise[len(noise) // 2] ^= 255
    with pytest.raises(FetchError, match="bad_response") as raised:
        body(bytes(noise), encoding)
    assert raised.value.may_pass


BOMB = gzip.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (BOMB, "gzip"),
        (gzip.compress(BOMB), "gzip, gzip"),
        (gzip.compress(gzip.compress(b"") * 1_000_000), "gzip, gzip"),  # large between the two, nothing at the end
        (by_arrow(bytes(50_000_000), "brotli"), "br"),
        (by_arrow(bytes(50_000_000), "zstd"), "zstd"),
    ],
)
def test_a_bomb_ends_at_the_limit(data, encoding):
    with pytest.raises(FetchError, match="too_large"):
        body(data, encoding, max_bytes=1_000_000)


def test_a_bomb_ends_at_the_deadline():
    with pytest.raises(FetchError, match="deadline"):
        body(BOMB, "gzip", max_bytes=10**9, seconds=-1)


def test_many_encodings_are_refused():
    with pytest.raises(FetchError, match="bad_response"):
        body(TEXT, ", ".join(["gzip"] * 4))


@pytest.mark.parametrize("encoding", ["gzip", "br"])
@pytest.mark.parametrize("error", [TimeoutError("late"), http.client.IncompleteRead(b"")])
def test_an_error_of_the_connection_stays_what_it_is(encoding, error):
    def breaking():
        yield ENCODED[encoding][:1000]
        raise error

    with pytest.raises(type(error)):
        list(decoded(breaking(), [encoding], fetch()))
