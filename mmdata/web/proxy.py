"""A proxy that fetches go through: it is asked for the address that was checked, never for a name to look up."""

from __future__ import annotations

import base64
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from mmdata.web.failures import FetchError

MAX_ANSWER = 16_384  # bytes of the proxy's answer to CONNECT


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that knows CONNECT.

    Args:
        authorization: value of Proxy-Authorization; None: none is sent.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Proxy:
        """From `http://[user:password@]host:port`, checked by mmdata.config."""
        parts = urlsplit(url)
        login = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(str(parts.hostname), parts.port or 80, login)

    def tunnel(self, connection: socket.socket, address: str, port: int) -> None:
        """Make a connection to the proxy one to an address. Raises FetchError `proxy`, OSError."""
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        answer, one = b"", bytearray(1)
        while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to the other side
            if len(answer) > MAX_ANSWER or not connection.recv_into(one):
                raise FetchError("proxy", f"the proxy {self.host}:{self.port} broke off", may_pass=True)
            answer += bytes(one)
        status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if len(status) < 2 or status[1] != "200":
            raise FetchError("proxy", f"the proxy {self.host}:{self.port} said {' '.join(status[1:])!r}", may_pass=True)
