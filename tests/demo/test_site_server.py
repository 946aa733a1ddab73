"""Files of the demo's site, over real HTTP."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from mmdata.demo.web_server import DemoServer
from tests.support.demo_site import BODY, ask


def test_files_come_with_their_type_length_and_etag(web):
    status, headers, body = ask(web, "/pictures/a.png")
    assert (status, body) == (200, BODY)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == str(len(BODY))
    assert ask(web, "/pictures/b%20c.jpg?size=2")[1]["Content-Type"] == "image/jpeg"
    assert headers["ETag"] == ask(web, "/pictures/a.png")[1]["ETag"] != ask(web, "/pictures/b%20c.jpg")[1]["ETag"]


@pytest.mark.parametrize(
    ("header", "span"), [("bytes=0-9", (0, 10)), ("bytes=1000-", (1000, 1024)), ("bytes=1000-9999", (1000, 1024))]
)
def test_ranges(web, header, span):
    status, headers, body = ask(web, "/pictures/a.png", headers={"Range": header})
    assert (status, body) == (206, BODY[slice(*span)])
    assert headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/1024"


def test_a_range_past_the_end_cannot_be_satisfied(web):
    assert ask(web, "/pictures/a.png", headers={"Range": "bytes=2000-"})[0] == 416


def test_a_connection_is_kept_for_the_next_request(web):
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    connection.request("GET", "/pictures/a.png")
    connection.getresponse().read()
    kept = connection.sock
    connection.request("GET", "/nothing")
    assert connection.getresponse().status == 404
    assert kept is not None
    assert connection.sock is kept
    connection.close()


@pytest.mark.parametrize("path", ["/../secret.txt", "/pictures/../../secret.txt", "/%2e%2e/secret.txt", "/a%00b", "/"])
def test_nothing_outside_of_the_site_is_served(web, path):
    assert ask(web, path)[0] == 404


def test_closing_does_not_wait_for_slow_or_idle_connections(tmp_path):
    (tmp_path / "a.png").write_bytes(BODY)
    server = DemoServer(tmp_path, byte_s=60).start()
    slow, idle = (socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(2))
    slow.sendall(b"GET /odd/slow/a.png HTTP/1.1\r\nHost: x\r\n\r\n")
    assert slow.recv(10).startswith(b"HTTP/1.1")
    idle.sendall(b"GET /a.png HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle.recv(10).startswith(b"HTTP/1.1")
    started, before = time.monotonic(), {t for t in threading.enumerate() if "process_request_thread" in t.name}
    assert before
    server.close()
    assert time.monotonic() - started < 30  # a minute a byte, else
    assert not any(thread.is_alive() for thread in before)
    slow.close()
    idle.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{server.url}/a.png", timeout=1)
