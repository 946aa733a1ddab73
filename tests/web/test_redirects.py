"""Redirects: how many are followed, where to, and which cookies go along. Whither none may go is in test_ssrf.py."""

from __future__ import annotations

import pytest

from mmdata.download.images import fetch_image
from tests.support.hostile_server import HostileServer, answer, jpeg

PICTURE = jpeg(1)


class CookieServer(HostileServer):
    """Sends `/cookie` only to those who bring the cookie that it sets in a redirect to itself."""

    def _respond(self, connection, path, query):
        if path == "/cookie" and "Cookie: a=1; b=2\r\n" not in self.requests[path]:
            headers = b"Set-Cookie: a=1; Path=/; HttpOnly\r\nSet-Cookie: b=2\r\nSet-Cookie: bad name=\x01\r\n"
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /cookie\r\n" + headers + b"Content-Length: 0\r\n\r\n")
        elif path == "/cookie":
            connection.sendall(answer(PICTURE))
        else:
            super()._respond(connection, path, query)


def test_a_redirect_to_itself_that_sets_a_cookie_leads_to_the_picture(settings):
    with CookieServer() as server:
        image = fetch_image(server.url("/cookie"), settings())
        assert image.failure is None
        assert server.hits["/cookie"] == 2
        fetch_image(server.url("/cookie"), settings())
        assert server.hits["/cookie"] == 4, "cookies are forgotten with the end of a fetch"


def test_cookies_are_not_sent_to_another_host(settings, web):
    with CookieServer("127.0.0.2") as server:
        target = web.url("/jpg/1")
        server.files["/away"] = answer(b"", "302 Found", Location=target, Set_Cookie="a=1")
        assert fetch_image(server.url("/away"), settings()).failure is None
        assert "Cookie" not in web.requests["/jpg/1"]


def test_the_address_that_a_chain_ends_at_is_known(settings, web):
    assert fetch_image(web.url("/hops/10"), settings()).final_url == web.url("/hops/0")


@pytest.mark.parametrize(
    "length", [b"Content-Length: 99999\r\n\r\nshort", b"Transfer-Encoding: chunked\r\n\r\nzz", b"\r\n" + bytes(1000)]
)
def test_the_body_of_a_redirect_is_not_read(settings, web, length):
    web.files["/x"] = b"HTTP/1.1 302 Found\r\nLocation: /jpg/1\r\n" + length
    assert fetch_image(web.url("/x"), settings()).failure is None


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        ("/caf\u00e9.jpg".encode(), "/caf%C3%A9.jpg"),
        ("/caf\u00e9.jpg".encode("latin-1"), "/caf%E9.jpg"),
        (b"/a b.jpg", "/a%20b.jpg"),
        (b"  /x.jpg#part  ", "/x.jpg"),
    ],
)
def test_a_target_with_other_letters_is_escaped(settings, web, location, requested):
    web.files["/x"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    fetch_image(web.url("/x"), settings())
    assert requested in web.requests


def test_a_target_on_a_foreign_host_is_written_as_browsers_write_it(settings, web):
    from mmdata.web.guard import Guard, install

    download = settings()
    install(Guard(download, resolve=lambda host, port: ["127.0.0.1"]))
    target = f"http://fa\u00df.example:{web.port}/jpg/1"
    web.files["/x"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + target.encode() + b"\r\n\r\n"
    for url in (web.url("/x"), target):
        assert fetch_image(url, download).failure is None
        assert f"Host: xn--fa-hia.example:{web.port}\r\n" in web.requests["/jpg/1"]


def test_a_long_target_is_refused(settings, web):
    web.files["/x"] = answer(b"", "302 Found", Location="http://[::1" + "a" * 60_000)
    failure = fetch_image(web.url("/x"), settings()).failure
    assert failure is not None
    assert failure.error == "bad_url"
