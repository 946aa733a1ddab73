"""The demo's web server, over real HTTP."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.demo.web_server import CLOUD_METADATA_URL, PRIVATE_URL, DemoServer
from mmdata.errors import UserError

BODY = bytes(range(256)) * 4


@pytest.fixture
def web(tmp_path: Path) -> Iterator[DemoServer]:
    site = tmp_path / "site"
    (site / "pictures").mkdir(parents=True)
    (site / "pictures/a.png").write_bytes(BODY)
    (site / "pictures/b c.jpg").write_bytes(b"jpeg")
    (tmp_path / "secret.txt").write_text("secret")
    with DemoServer(site, byte_s=0.01) as server:
        yield server


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


def test_files_come_with_their_type_length_and_etag(web):
    status, headers, body = ask(web, "/pictures/a.png")
    assert (status, body) == (200, BODY)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == str(len(BODY))
    assert ask(web, "/pictures/b%20c.jpg?size=2")[1]["Content-Type"] == "image/jpeg"
    assert ask(web, "/pictures/a.png", headers={"If-None-Match": headers["ETag"]})[0] == 304


def test_head_gives_the_headers_alone(web):
    status, headers, body = ask(web, "/pictures/a.png", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(BODY)), b"")


@pytest.mark.parametrize(
    ("asked", "span"), [("bytes=0-9", (0, 10)), ("bytes=1000-", (1000, 1024)), ("bytes=-5", (1019, 1024))]
)
def test_ranges(web, asked, span):
    status, headers, body = ask(web, "/pictures/a.png", headers={"Range": asked})
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


def test_a_chain_of_redirects_ends_at_the_file(web):
    with urllib.request.urlopen(f"{web.url}/odd/redirect/3/pictures/a.png", timeout=5) as response:
        assert response.read() == BODY
        assert response.url == f"{web.url}/pictures/a.png"
    assert len(web.requests) == 4


def test_redirects_to_private_places_and_to_itself(web):
    assert ask(web, "/odd/to-private/x")[1]["Location"] == PRIVATE_URL
    assert ask(web, "/odd/to-metadata/x")[1]["Location"] == CLOUD_METADATA_URL
    assert ask(web, "/odd/loop/x")[1]["Location"] == "/odd/loop/x"


def test_busy_asks_to_come_later_and_then_answers(web):
    status, headers, _ = ask(web, "/odd/busy/pictures/a.png")
    assert (status, headers["Retry-After"]) == (429, "1")
    assert ask(web, "/odd/busy/pictures/a.png")[::2] == (200, BODY)


@pytest.mark.parametrize(("path", "status"), [("/odd/down/x", 503), ("/odd/gone/x", 410), ("/odd/unheard-of", 404)])
def test_error_statuses(web, path, status):
    assert ask(web, path)[0] == status


def test_headers_that_lie_or_forbid(web):
    assert ask(web, "/odd/noai/pictures/a.png")[1]["X-Robots-Tag"] == "noai"
    status, headers, body = ask(web, "/odd/mislabelled/pictures/a.png")
    assert (status, headers["Content-Type"], body) == (200, "text/plain; charset=utf-8", BODY)
    _, headers, body = ask(web, "/odd/html/x.jpg")
    assert headers["Content-Type"] == "image/jpeg"
    assert body.startswith(b"<!doctype html>")


def test_a_body_that_is_cut_short(web):
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(web, "/odd/cut/pictures/a.png")
    assert caught.value.partial == BODY[:512]


@pytest.mark.parametrize(("path", "length"), [("/odd/endless/x.png", None), ("/odd/huge/x.png", str(1 << 30))])
def test_oversized_bodies_go_on_until_the_client_hangs_up(web, path, length):
    with urllib.request.urlopen(web.url + path, timeout=5) as response:
        assert response.headers["Content-Length"] == length
        assert len(response.read(3_000_000)) == 3_000_000
    assert ask(web, "/pictures/a.png")[0] == 200


def test_slow_sends_one_byte_at_a_time(web):
    with socket.create_connection(("127.0.0.1", web.port), timeout=5) as connection:
        connection.sendall(b"GET /odd/slow/pictures/a.png HTTP/1.1\r\nHost: x\r\n\r\n")
        received = connection.recv(65536)
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        body = received.partition(b"\r\n\r\n")[2]
        pieces = []
        while len(body) < 10:
            pieces.append(connection.recv(65536))
            body += pieces[-1]
        assert BODY.startswith(body)
        assert len(pieces) > 1


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


def test_a_port_that_is_taken_is_a_user_error(web, tmp_path):
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{web.port} cannot be listened on"):
        DemoServer(tmp_path, port=web.port)


def test_the_port_is_free_again_after_closing(tmp_path):
    with DemoServer(tmp_path) as first:
        port = first.port
        ask(first, "/x")
    with DemoServer(tmp_path, port=port) as second:
        assert ask(second, "/x")[0] == 404
