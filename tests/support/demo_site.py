"""Requests to the demo's web server."""

from __future__ import annotations

import http.client

from mmdata.demo.web_server import DemoServer

BODY = bytes(range(256)) * 4
"""The content of /pictures/a.png."""


def ask(
    web: DemoServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()
