"""Reads the head of an HTTP response as browsers do. http.client gives up at 100 headers and at a line without a colon.

The head that strangers write is read here, within a number of bytes; http.client then gets the few headers that say
where the body ends, in one form.
"""

from __future__ import annotations

import http.client
import io
import re
from dataclasses import dataclass
from typing import IO

from mmdata.web.failures import FetchError
from mmdata.web.header_values import content_length
from mmdata.web.limits import MAX_HEADER_BYTES

MAX_REASON_CHARS = 100
MAX_HEADER_CHARS = 16_384
"""Longer values are cut. No URL of a source may be that long, and no header that we read needs it."""

_STATUS_LINE = re.compile(r"(HTTP/[0-9]+(?:\.[0-9]+)?|ICY)[ \t]++([0-9]{3})(?:[ \t](.*))?", re.IGNORECASE)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers of a response."""

    version: str
    status: int
    reason: str
    headers: http.client.HTTPMessage

    def framing(self) -> bytes:
        """The head as http.client needs it to find the end of the body."""
        lines = [f"{self.version} {self.status} {self.reason}"]
        codings = [
            coding.strip().lower() for coding in ",".join(self.headers.get_all("Transfer-Encoding", [])).split(",")
        ]
        length = content_length(self.headers.get_all("Content-Length", []))
        if "chunked" in codings:
            lines.append("Transfer-Encoding: chunked")
        elif length is not None:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Response(http.client.HTTPResponse):
    """A response whose head is read by `read_head`."""

    def begin(self) -> None:
        """Read the head. Raises FetchError, HTTPException, OSError."""
        if getattr(self, "headers", None) is not None:
            return
        stream = self.fp
        head = read_head(stream)
        self.fp = io.BufferedReader(io.BytesIO(head.framing()))
        try:
            super().begin()
        finally:
            self.fp = stream
        self.headers = self.msg = head.headers


def read_head(stream: IO[bytes]) -> Head:
    """Read the head of the final response; interim ones (100 Continue, 103 Early Hints) are skipped.

    Lines that are no header are skipped. All heads together may have MAX_HEADER_BYTES.

    Raises:
        FetchError: `too_large`.
        HTTPException: there is no status line, or the server wants to speak another protocol.
    """
    lines = _Lines(stream)
    while True:
        line = lines.next()
        if not line:
            raise http.client.RemoteDisconnected("the server closed the connection without an answer")
        status_line = _STATUS_LINE.fullmatch(line.rstrip("\r\n"))
        if status_line is None:
            raise http.client.BadStatusLine(repr(line[:MAX_REASON_CHARS]))
        status, headers = int(status_line[2]), _read_headers(lines)
        if status == _SWITCHING_PROTOCOLS:
            raise http.client.UnknownProtocol("the server switches to another protocol")
        if status >= 200 or status < 100:
            version = "HTTP/1.0" if status_line[1].upper() in ("HTTP/1.0", "ICY") else "HTTP/1.1"
            reason = _CONTROL_CHARACTERS.sub(" ", status_line[3] or "").strip()[:MAX_REASON_CHARS]
            return Head(version, status, reason, headers)


def _read_headers(lines: _Lines) -> http.client.HTTPMessage:
    """The headers up to the empty line. A line that begins with a blank continues the header before it."""
    pairs: list[tuple[str, list[str]]] = []
    while (line := lines.next().rstrip("\r\n")) != "":
        name, colon, value = line.partition(":")
        if line[0] in " \t":
            if pairs:
                pairs[-1][1].append(line)
        elif colon and _NAME.fullmatch(name.strip()):
            pairs.append((name.strip(), [value]))
    headers = http.client.HTTPMessage()
    for name, values in pairs:
        text = " ".join(value.strip() for value in values)[:MAX_HEADER_CHARS]
        headers[name] = _CONTROL_CHARACTERS.sub(" ", text).strip()
    return headers


class _Lines:
    """The lines of a stream, as Latin-1, within MAX_HEADER_BYTES."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._bytes_left = MAX_HEADER_BYTES

    def next(self) -> str:
        """The next line with its end; the empty string at the end of the stream. Raises FetchError `too_large`."""
        line = self._stream.readline(self._bytes_left + 1)
        self._bytes_left -= len(line)
        if self._bytes_left < 0:
            raise FetchError("too_large", f"the head of the response is longer than {MAX_HEADER_BYTES} bytes")
        return line.decode("latin-1")
