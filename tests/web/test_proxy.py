"""Proxies: that of the configuration is used, those of the environment are not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mmdata.config import Download
from mmdata.web.addresses import system_resolver
from mmdata.web.guard import Guard, install
from tests.support.fetch_roads import by_image


@contextmanager
def connect_proxy(refuse: bool = False) -> Iterator[tuple[int, list[str]]]:
    """A proxy on loopback that knows CONNECT: its port, and the requests that it got."""
    requests: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for connection in (source, target):
                connection.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += client.recv(65536)
            requests.append(request.decode("latin-1"))
            if refuse:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                client.close()
                continue
            host, _, port = request.split(b" ")[1].decode().rpartition(":")
            server = socket.create_connection((host.strip("[]"), int(port)))
            client.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_proxies_of_the_environment_are_never_used(web, settings, fetch, monkeypatch):
    with connect_proxy() as (port, requests):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        fetch(web.url("/jpg/1"), settings(timeout_s=2, deadline_s=3))
    assert web.hits["/jpg/1"]
    assert requests == []


def test_a_proxy_of_the_configuration_is_given_the_address_that_was_checked(web, settings, fetch):
    with connect_proxy() as (port, requests):
        download = settings(timeout_s=2, deadline_s=3, proxy=f"http://me:hidden@127.0.0.1:{port}")
        install(
            Guard(
                download, resolve=lambda host, number: ["127.0.0.1"] if "web" in host else system_resolver(host, number)
            )
        )
        fetch(web.url("/jpg/1"), download)
        assert requests[0].startswith(f"CONNECT 127.0.0.1:{web.port} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic bWU6aGlkZGVu\r\n" in requests[0]
        assert "Authorization" not in web.requests["/jpg/1"]
        requests.clear()
        failure = fetch("http://10.0.0.1/x.jpg", download)
        assert failure is not None
        assert failure.error == "private_address"
        assert requests == []


def test_a_proxy_that_refuses_is_a_passing_failure_without_its_password(web, settings):
    with connect_proxy(refuse=True) as (port, _):
        failure = by_image(web.url("/jpg/1"), settings(proxy=f"http://me:hidden@127.0.0.1:{port}"))
    assert failure is not None
    assert (failure.error, failure.may_pass) == ("proxy", True)
    assert "hidden" not in failure.detail
    assert not web.hits


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1", "127.0.0.1:3128", "https://p:1"])
def test_the_configuration_refuses_bad_proxies(proxy):
    with pytest.raises(ValueError, match="expected a proxy as http://host:port"):
        Download(proxy=proxy)
