"""Writes HTTP answers: heads, framings and encodings of many spellings, sound and broken."""

from __future__ import annotations

import gzip
import random
import zlib
from dataclasses import dataclass

import pyarrow as pa

TEXTS = [
    "",
    "0",
    "-1",
    "²",
    "1e400",
    "9" * 20,
    "9" * 5000,
    "nan",
    "inf",
    "*",
    ";",
    "=",
    "\x00\x1b",
    "\xff\xfe",
    "://a:b" * 3000,
]
TEXTS += [
    "a" * 20_000,
    "Mon, 01 Jan 99999 00:00:00 GMT",
    "Thu, 01 Jan 1970 00:00:00 +99999999999",
    "2026-11-28T17:00:00Z",
]
TEXTS += [
    "120, 120",
    "bytes 0-9/10",
    "bytes */0",
    "text/html; charset=\xe9",
    '"v1"',
    'W/"x"',
    "a=b; Max-Age=²",
    "None",
    ",",
]
NAMES = ["Date", "Age", "Expires", "Retry-After", "ETag", "Last-Modified", "Content-Type", "Set-Cookie", "Link", "Via"]
NAMES += [
    "Content-Range",
    "Connection",
    "Vary",
    "X-Robots-Tag",
    "TDM-Policy",
    "Refresh",
    "Content-Disposition",
    "Server",
]
LINES = [
    "no colon",
    ": no name",
    " continued",
    "\t",
    "Bad Name: x",
    "\xe9: x",
    "X:" + "y" * 30_000,
    "From x",
    "--boundary",
]
UNKNOWN_ENCODINGS = ["none", "utf-8", "binary", "aws-chunked", "image/jpeg", "identity", "", "²", ",,", "x" * 9000]
LOCATIONS = [
    "/sound",
    "?again",
    "//10.0.0.1/x",
    "http://[::1",
    "ftp://a/",
    "http://u:p@a.example/",
    "http://\xff\xfe/",
    "\xe9",
]
LOCATIONS += [
    "http://a.example:99999/",
    "http://a" + "ß" * 200 + "/",
    "x" * 40_000,
    "",
    "#",
    "javascript:x",
    "http://0x7f.1:22/",
]
CODES = [100, 101, 102, 103, 199, 200, 203, 204, 205, 206, 226, 299, 300, 301, 302, 303, 304, 305, 307, 308, 310, 399]
CODES += [
    400,
    401,
    403,
    404,
    407,
    408,
    410,
    413,
    416,
    417,
    421,
    425,
    426,
    429,
    451,
    499,
    500,
    501,
    503,
    504,
    505,
    599,
    999,
]
BROKEN_STATUS_LINES = [
    "",
    "HTTP/1.1",
    "HTTP/1.1 200x OK",
    "HTTP/1.1 ²00 OK",
    "HTTP/9 20 OK",
    "GET / HTTP/1.1",
    "\x00\x01",
]
BROKEN_STATUS_LINES += [
    "HTTP/1.1  -200 OK",
    "HTTP/1.1 1000000 OK",
    "SSH-2.0-x",
    "<html>",
    "H" * 70_000,
    "http/1.1 200 ok",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sends before it closes the connection.

    Args:
        is_sound: a browser would show the picture.
    """

    data: bytes
    is_sound: bool


def any_answer(draw: random.Random, picture: bytes) -> Answer:
    """An answer that holds the picture, or something that is broken."""
    if draw.random() < 0.5:
        return _sound_answer(draw, picture)
    kind = draw.randrange(5)
    if kind == 0:
        line = draw.choice(BROKEN_STATUS_LINES)
        return Answer(_joined([line, *_noise(draw), "", ""]) + picture, line.startswith("http"))
    if kind == 1:
        code = draw.choice(CODES)
        lines = [f"HTTP/1.1 {code} {draw.choice(TEXTS)}", *_noise(draw), f"Location: {draw.choice(LOCATIONS)}"]
        return Answer(_joined([*lines, f"Retry-After: {draw.choice(TEXTS)}", "", ""]) + picture, False)
    sound = bytearray(_sound_answer(draw, picture).data)
    if kind == 2:  # it breaks off
        return Answer(bytes(sound[: draw.randrange(len(sound))]), False)
    for _ in range(draw.choice([1, 3, 30])):  # bytes of the head, or of everything
        sound[draw.randrange(min(len(sound), draw.choice([200, 1_000_000])))] = draw.randrange(256)
    if kind == 3:
        return Answer(bytes(sound), False)
    lines = ["HTTP/1.1 200 OK", *_broken_framing(draw, len(picture)), "", ""]
    return Answer(_joined(lines) + draw.choice([picture, picture[:99], b"", gzip.compress(bytes(3_000_000))]), False)


def _sound_answer(draw: random.Random, picture: bytes) -> Answer:
    interim = [
        line
        for _ in range(draw.choice([0, 0, 0, 1, 3]))
        for line in (f"HTTP/1.1 {draw.choice([100, 102, 103])} {draw.choice(['', 'Early'])}", "Link: <a>", "")
    ]
    encoding, body = _encoded(draw, picture)
    framing, framed = _framed(draw, body)
    status = draw.choice(
        ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 203 X", "ICY 200 OK", "HTTP/2 200"]
    )
    headers = [*_harmless_noise(draw), *framing, *encoding]
    draw.shuffle(headers)
    end = draw.choice(["\r\n", "\r\n", "\n"])
    return Answer(end.join([*interim, status, *headers, "", ""]).encode("latin-1", "replace") + framed, True)


def _encoded(draw: random.Random, picture: bytes) -> tuple[list[str], bytes]:
    """Header lines and body of an encoding that was applied, or of a word that is none."""
    kind = draw.randrange(8)
    if kind < 4:
        return ([f"Content-Encoding: {draw.choice(UNKNOWN_ENCODINGS)}"] if kind else []), picture
    names, body = [], picture
    for _ in range(draw.choice([1, 1, 2, 3])):
        name = draw.choice(["gzip", "deflate", "br", "zstd", "x-gzip"])
        names.append(draw.choice([name, name.upper()]))
        body = _compressed(name, body)
    return [f"Content-Encoding: {draw.choice([', ', ','])}".rstrip() + " " + ",".join(names)], body


def _compressed(name: str, data: bytes) -> bytes:
    if name == "deflate":
        return zlib.compress(data)
    if name in ("gzip", "x-gzip"):
        return gzip.compress(data)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, {"br": "brotli"}.get(name, name)) as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


def _framed(draw: random.Random, body: bytes) -> tuple[list[str], bytes]:
    """Header lines that say where a body ends, and the body. The last two are wrong, but browsers show the picture."""
    kind = draw.randrange(6)
    if kind == 0:
        return [], body
    if kind == 1:
        return [f"Content-Length: {len(body)}"] * draw.choice([1, 2]), body
    if kind in (2, 3):
        size, sign = draw.choice([100, 777, 100_000]), draw.choice(["x", "X"])
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        extension = draw.choice(["", ";a=b", " "])
        chunks = b"".join(f"{len(piece):{sign}}{extension}\r\n".encode() + piece + b"\r\n" for piece in pieces)
        last = draw.choice([b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b""])
        return [f"Transfer-Encoding: {draw.choice(['chunked', 'Chunked', 'chunked, chunked'])}"], chunks + last
    if kind == 4:
        return [f"Content-Length: {draw.choice(['-1', '²', '', '5, 6', '9' * 40])}"], body
    return [f"Content-Length: {len(body) + draw.choice([1, 7, 2000])}"], body


def _broken_framing(draw: random.Random, length: int) -> list[str]:
    lines = [
        f"Content-Length: {draw.choice([*TEXTS, str(length // 2), str(10**12)])}",
        f"Transfer-Encoding: {draw.choice(['chunked', 'gzip, chunked', 'x', *TEXTS])}",
        f"Content-Encoding: {draw.choice(['gzip', 'br, zstd', 'gzip,' * 50, 'deflate', *TEXTS])}",
        f"Content-Range: {draw.choice(TEXTS)}",
    ]
    return draw.sample(lines, draw.randrange(1, 5))


def _noise(draw: random.Random) -> list[str]:
    count = draw.choice([0, 3, 10, 150])
    return [
        draw.choice(LINES) if draw.random() < 0.2 else f"{draw.choice(NAMES)}: {draw.choice(TEXTS[:9])}"
        for _ in range(count)
    ]


def _harmless_noise(draw: random.Random) -> list[str]:
    """Headers that decide nothing about the picture. No line is one that would continue the header before it."""
    names = [name for name in NAMES if name not in ("X-Robots-Tag", "Content-Range")]
    odd_lines = [line for line in LINES if line[0] not in " \t"]
    texts = [text for text in TEXTS if len(text) < 1000]
    count = draw.choice([0, 3, 10, 150])
    return [
        draw.choice(odd_lines[:3]) if draw.random() < 0.2 else f"{draw.choice(names)}: {draw.choice(texts)}"
        for _ in range(count)
    ]


def _joined(lines: list[str]) -> bytes:
    return "\r\n".join(lines).encode("latin-1", "replace")
