"""The demo's misbehaving web, over real HTTP."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request

import pytest

from mmdata.demo.web_server import CLOUD_METADATA_URL, PRIVATE_URL, DemoServer
from mmdata.errors import UserError
from tests.support.demo_site import BODY, ask


def test_a_chain_of_redirects_ends_at_the_file(web):
    assert ask(web, "/odd/redirect/3/pictures/a.png")[1]["Location"] == "/odd/redirect/2/pictures/a.png"
    with urllib.request.urlopen(f"{web.url}/odd/redirect/3/pictures/a.png", timeout=5) as response:
        assert response.read() == BODY
        assert response.url == f"{web.url}/pictures/a.png"


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


def test_a_port_that_is_taken_is_a_user_error(web, tmp_path):
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{web.port} cannot be listened on"):
        DemoServer(tmp_path, port=web.port)


def test_the_port_is_free_again_after_closing(tmp_path):
    with DemoServer(tmp_path) as first:
        port = first.port
        ask(first, "/x")
    with DemoServer(tmp_path, port=port) as second:
        assert ask(second, "/x")[0] == 404
