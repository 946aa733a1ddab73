"""The HTTP proxy of `download.proxy`. It is given the address that the guard checked, never a name to look up."""

from __future__ import annotations

import base64
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from mmdata.web.failures import FetchError

MAX_CONNECT_ANSWER_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that supports CONNECT.

    Args:
        authorization: value of the header Proxy-Authorization; None: the header is not sent.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> Proxy:
        """Read `http://[user:password@]host:port`, which mmdata.config has checked."""
        parts = urlsplit(url)
        authorization = None
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(login.encode()).decode()
        return cls(str(parts.hostname), parts.port or 80, authorization)

    def tunnel(self, connection: socket.socket, address: str, port: int) -> None:
        """Turn a connection to the proxy into a connection to an address. Raises FetchError `proxy`, OSError."""
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        answer, next_byte = b"", bytearray(1)
        while not answer.endswith(b"\r\n\r\n"):  # byte by byte: the bytes that follow belong to the tunnel
            if len(answer) > MAX_CONNECT_ANSWER_BYTES or not connection.recv_into(next_byte):
                raise FetchError("proxy", f"the proxy {self.host}:{self.port} closed the connection", may_pass=True)
            answer += next_byte
        status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if len(status) < 2 or status[1] != "200":
            raise FetchError("proxy", f"the proxy {self.host}:{self.port} said {' '.join(status[1:])!r}", may_pass=True)
