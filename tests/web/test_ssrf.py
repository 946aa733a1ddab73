"""Requests that somebody else would like us to make: each is refused, and what it aims at is never contacted."""

from __future__ import annotations

import socket

import pytest

from mmdata.web.failures import FetchError
from mmdata.web.guard import DNS_CACHE_NAMES, Guard, install
from mmdata.web.limits import fetching
from tests.support.fetch_roads import by_file, by_image
from tests.support.hostile_inputs import PRIVATE_HOSTS, REDIRECTS, REFUSED_URLS
from tests.support.hostile_server import HostileServer, answer


@pytest.mark.parametrize("hosts", [PRIVATE_HOSTS[::8], pytest.param(PRIVATE_HOSTS, marks=pytest.mark.slow)])
def test_hosts_that_are_not_public_are_refused_on_every_road(web, settings, fetch, hosts):
    assert_refused(hosts, web, settings, fetch)


def test_hosts_that_are_not_public_are_refused_in_every_spelling(web, settings):
    assert_refused(PRIVATE_HOSTS, web, settings, by_image)


def assert_refused(hosts, web, settings, fetch) -> None:
    download = settings(allow_hosts=[])
    wrong = {}
    for host in hosts:
        failure = fetch(f"http://{host}:{web.port}/jpg/1", download)
        if failure is None or (failure.error, failure.status) != ("private_address", "refused"):
            wrong[host] = failure
    assert wrong == {}
    assert not web.hits


@pytest.mark.parametrize("host", ["127.0.0.1.", "localhost."])
def test_a_private_host_with_a_final_dot_is_not_contacted(web, settings, fetch, host):
    """A name to some resolvers, nothing to others."""
    failure = fetch(f"http://{host}:{web.port}/jpg/1", settings(allow_hosts=[]))
    assert failure is not None
    assert failure.error in ("private_address", "dns")
    assert not web.hits


def test_deceptive_urls_are_refused_without_a_look_up(settings, fetch, monkeypatch):
    looked_up: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host) or [])
    download = settings(allow_hosts=[])
    wrong = {}
    for url, error in REFUSED_URLS.items():
        failure = fetch(url, download)
        if failure is None or (failure.error, failure.status) != (error, "refused") or "secret" in failure.detail:
            wrong[url] = failure
    assert wrong == {}
    assert looked_up == []


def test_the_target_of_a_redirect_is_checked_like_any_url(web, settings, fetch):
    download = settings(timeout_s=2, deadline_s=3)
    wrong = {}
    for number, (target, error) in enumerate(REDIRECTS.items()):
        web.files[f"/away{number}"] = answer(b"", "302 Found", Location=target)
        failure = fetch(web.url(f"/away{number}"), download)
        if failure is None or failure.error != error or "secret" in failure.detail:
            wrong[target] = failure
    assert wrong == {}


@pytest.mark.parametrize("code", ["301 Moved", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_of_every_status_are_checked(web, settings, fetch, code):
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


def test_endless_interim_answers_end_with_the_byte_limit(web, settings):
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


def test_a_link_local_address_with_a_zone_is_refused(settings):
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


def test_the_configuration_decides_the_ports(web, settings):
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


def test_the_dns_cache_has_a_maximal_size(settings):
    guard = Guard(settings(allow_hosts=["127.0.0.0/8"], deadline_s=60), resolve=lambda host, port: ["127.0.0.1"])
    with fetching(guard.download) as fetch:
        guard._dns_cache = {(str(number), 80): (1e18, []) for number in range(DNS_CACHE_NAMES)}
        guard._addresses("one-more.example", 80, fetch)
    assert len(guard._dns_cache) == 1
