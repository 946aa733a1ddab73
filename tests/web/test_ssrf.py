"""Requests that somebody else would like us to make: each is refused, and what it aims at is never contacted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from mmdata.config import Clips, Download
from mmdata.download.images import fetch_image
from mmdata.web.addresses import is_public, system_resolver
from mmdata.web.failures import FetchError
from mmdata.web.guard import DNS_CACHE_NAMES, Guard, install
from mmdata.web.large_files import fetch_file
from mmdata.web.limits import fetching
from mmdata.web.ports import SERVICE_PORTS, port_refusal
from mmdata.web.video_sites import fetch_from_site
from tests.support.hostile_inputs import PRIVATE_HOSTS, REDIRECTS, REFUSED_URLS
from tests.support.hostile_server import HostileServer, answer

Fetch = Callable[[str, Download], FetchError | None]


def by_image(url: str, download: Download) -> FetchError | None:
    return fetch_image(url, download).failure


def by_file(folder: Path) -> Fetch:
    return lambda url, download: fetch_file(url, folder / "file", download, Clips(deadline_s=2)).failure


def by_site(folder: Path) -> Fetch:
    return lambda url, download: fetch_from_site(url, folder / "site", download, Clips(deadline_s=30)).failure


@pytest.fixture(params=["image", "file", "site"])
def fetch(request, tmp_path) -> Fetch:
    """Each road by which a URL out of a source is fetched."""
    if request.param == "site":
        pytest.importorskip("yt_dlp")
    return {"image": by_image, "file": by_file(tmp_path), "site": by_site(tmp_path)}[request.param]


def test_what_is_not_public_is_refused_in_every_spelling_on_every_road(web, settings, fetch):
    download = settings(allow_hosts=[])
    wrong = {}
    for host in PRIVATE_HOSTS:
        failure = fetch(f"http://{host}:{web.port}/jpg/1", download)
        if failure is None or (failure.error, failure.status) != ("private_address", "refused"):
            wrong[host] = failure
    assert wrong == {}
    assert not web.hits


@pytest.mark.parametrize("host", ["127.0.0.1.", "localhost."])
def test_a_host_with_a_dot_behind_it_reaches_nothing(web, settings, fetch, host):
    """A name to some resolvers, nothing to others."""
    failure = fetch(f"http://{host}:{web.port}/jpg/1", settings(allow_hosts=[]))
    assert failure is not None
    assert failure.error in ("private_address", "dns")
    assert not web.hits


def test_urls_that_lie_are_refused_without_a_look_up(settings, fetch, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: asked.append(host) or [])
    download = settings(allow_hosts=[])
    wrong = {}
    for url, error in REFUSED_URLS.items():
        failure = fetch(url, download)
        if failure is None or (failure.error, failure.status) != (error, "refused") or "secret" in failure.detail:
            wrong[url] = failure
    assert wrong == {}
    assert asked == []


def test_a_redirect_leads_nowhere_that_its_target_would_not(web, settings, fetch):
    download = settings(timeout_s=2, deadline_s=3)
    wrong = {}
    for number, (target, error) in enumerate(REDIRECTS.items()):
        web.files[f"/away{number}"] = answer(b"", "302 Found", Location=target)
        failure = fetch(web.url(f"/away{number}"), download)
        if failure is None or failure.error != error or "secret" in failure.detail:
            wrong[target] = failure
    assert wrong == {}


@pytest.mark.parametrize("code", ["301 Moved", "303 See Other", "307 Temporary", "308 Permanent"])
def test_every_kind_of_redirect_is_looked_at(web, settings, fetch, code):
    web.files["/away"] = answer(b"", code, Location="http://10.0.0.1/x.jpg")
    failure = fetch(web.url("/away"), settings(timeout_s=2, deadline_s=3))
    assert failure is not None
    assert failure.error == "private_address"


def test_a_redirect_to_itself_ends(web, settings):
    web.files["/loop"] = answer(b"", "302 Found", Location="/loop")
    failure = by_image(web.url("/loop"), settings())
    assert failure is not None
    assert failure.error == "too_many_redirects"
    assert web.hits["/loop"] < 8


def test_interim_answers_without_end_end_with_the_budget(web, settings):
    web.files["/early"] = b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000
    failure = by_image(web.url("/early"), settings(max_bytes=100_000, timeout_s=2, deadline_s=3))
    assert failure is not None
    assert failure.error in ("too_large", "bad_response")


def test_a_name_that_changes_its_answer_is_connected_where_it_was_checked(settings, tmp_path):
    """DNS rebinding between look-up and connection, by pictures and by files."""
    for road in (by_image, by_file(tmp_path)):
        answers = iter(["127.0.0.2", "127.0.0.1", "127.0.0.1"])
        with HostileServer("127.0.0.2") as allowed, HostileServer("127.0.0.1") as private:
            download = settings(allow_hosts=["127.0.0.2/32"])
            guard = Guard(download, resolve=lambda host, port, answers=answers: [next(answers)])
            install(guard)
            assert road(allowed.url("/jpg/1", host="rebind.example"), download) is None
            guard._dns_cache.clear()  # as after a minute
            failure = road(private.url("/jpg/1", host="rebind.example"), download)
            assert failure is not None
            assert failure.error == "private_address"
            assert not private.hits


@pytest.mark.parametrize("answers", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1"]])
def test_one_private_answer_among_public_ones_refuses_the_name(web, settings, answers):
    download = settings(allow_hosts=[])
    install(Guard(download, resolve=lambda host, port: answers))
    failure = by_image(web.url("/jpg/1", host="mixed.example"), download)
    assert failure is not None
    assert failure.error == "private_address"


def test_what_a_resolver_says_with_a_zone_is_refused(settings):
    download = settings(allow_hosts=[])
    install(Guard(download, resolve=lambda host, port: ["fe80::1%eth0"]))
    failure = by_image("http://zone.example/x.jpg", download)
    assert failure is not None
    assert failure.error == "private_address"


def test_the_port_is_checked_where_the_connection_is_made(settings):
    """Whatever a reader of URLs makes of one, no connection goes to a port of another service."""
    guard = Guard(settings(allow_hosts=[]), resolve=lambda host, port: ["8.8.8.8"])
    for port in (22, 25, 6379, 81):
        with fetching(guard.download), pytest.raises(FetchError, match="bad_port"):
            guard.connect("public.example", port)


@pytest.mark.parametrize(
    ("port", "ports", "allowed", "asked"),
    [
        (80, None, False, True),
        (443, None, False, True),
        (8080, None, False, True),
        (1023, None, False, False),
        (1023, None, True, True),
        (8080, [80, 443], False, False),
        (8080, [80, 443], True, True),
        (81, [81], False, True),
        (6379, [6379], False, False),
        (6379, None, True, False),
        (22, None, True, False),
        (0, None, True, False),
    ],
)
def test_which_ports_are_asked(port, ports, allowed, asked):
    assert (port_refusal(port, ports, allowed) is None) == asked


def test_no_port_of_a_service_is_one_that_a_system_gives_away_by_itself():
    """The demo's server listens on such a port."""
    assert not any(32768 <= port < 50000 for port in SERVICE_PORTS)


def test_ports_are_by_the_configuration(web, settings):
    assert by_image(web.url("/jpg/1"), settings(ports=[80, 443])) is None, "the host is allowed by name"
    other = settings(ports=[80, 443], allow_hosts=[])
    install(Guard(other, resolve=lambda host, port: ["8.8.8.8"]))
    failure = by_image("http://public.example:8080/x.jpg", other)
    assert failure is not None
    assert failure.error == "bad_port"


def test_a_redirect_out_of_tls_is_followed_or_refused_as_the_configuration_says(
    web, settings, certificates, monkeypatch
):
    both, authority = certificates
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with HostileServer(certificate=str(both)) as secure:
        secure.files["/down"] = answer(b"", "302 Found", Location=web.url("/jpg/1"))
        for allow, error in ((True, None), (False, "downgrade")):
            download = settings(timeout_s=3, deadline_s=4, allow_downgrade=allow)
            install(Guard(download, resolve=lambda host, port: ["127.0.0.1"]))
            failure = by_image(secure.url("/down", host="pictures.example"), download)
            assert (failure.error if failure else None) == error
        assert web.hits["/jpg/1"] == 1


def test_names_that_were_looked_up_do_not_fill_the_memory(settings):
    guard = Guard(settings(allow_hosts=["127.0.0.0/8"]), resolve=lambda host, port: ["127.0.0.1"])
    with fetching(guard.download) as fetch:
        guard._dns_cache = {(str(number), 80): (1e18, []) for number in range(DNS_CACHE_NAMES)}
        guard._addresses("one-more.example", 80, fetch)
    assert len(guard._dns_cache) == 1


@contextmanager
def connect_proxy(refuse: bool = False) -> Iterator[tuple[int, list[str]]]:
    """A proxy on loopback that knows CONNECT: its port, and what it was asked."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, target):
                one.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += client.recv(65536)
            asked.append(request.decode("latin-1"))
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
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_proxies_of_the_environment_are_not_asked_on_any_road(web, settings, fetch, monkeypatch):
    with connect_proxy() as (port, asked):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        fetch(web.url("/jpg/1"), settings(timeout_s=2, deadline_s=3))
    assert web.hits["/jpg/1"]
    assert asked == []


def test_a_proxy_of_the_configuration_is_given_the_address_that_was_checked(web, settings, fetch):
    with connect_proxy() as (port, asked):
        download = settings(timeout_s=2, deadline_s=3, proxy=f"http://me:hidden@127.0.0.1:{port}")
        install(
            Guard(
                download, resolve=lambda host, number: ["127.0.0.1"] if "web" in host else system_resolver(host, number)
            )
        )
        fetch(web.url("/jpg/1"), download)
        assert asked[0].startswith(f"CONNECT 127.0.0.1:{web.port} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic bWU6aGlkZGVu\r\n" in asked[0]
        assert "Authorization" not in web.requests["/jpg/1"]
        asked.clear()
        failure = fetch("http://10.0.0.1/x.jpg", download)
        assert failure is not None
        assert failure.error == "private_address"
        assert asked == []


def test_a_proxy_that_refuses_is_a_reason_that_may_pass_and_names_no_password(web, settings):
    with connect_proxy(refuse=True) as (port, _):
        failure = by_image(web.url("/jpg/1"), settings(proxy=f"http://me:hidden@127.0.0.1:{port}"))
    assert failure is not None
    assert (failure.error, failure.may_pass) == ("proxy", True)
    assert "hidden" not in failure.detail
    assert not web.hits


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1", "127.0.0.1:3128", "https://p:1"])
def test_what_is_no_proxy_is_refused_in_the_configuration(proxy):
    with pytest.raises(ValueError, match="a proxy is http://host:port"):
        Download(proxy=proxy)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_the_open_internet_is_open(address):
    """Where a network has IPv6 only, every IPv4 server has an address of NAT64."""
    assert is_public(ip_address(address))
