"""The guard against real servers that misbehave; whom it does not contact at all is in test_ssrf.py."""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path

import pytest

from mmdata import __version__
from mmdata.config import Download
from mmdata.config.media import NO_CONTACT
from mmdata.download.images import fetch_image
from mmdata.web.guard import Guard, install
from tests.support.hostile_server import HostileServer, answer, jpeg


def outcome(url: str, download: Download) -> str:
    image = fetch_image(url, download)
    return image.failure.error if image.failure else image.status


def test_a_good_server_gives_the_picture_its_type_and_etag(web, settings):
    image = fetch_image(web.url("/jpg/5"), settings())
    assert (image.status, image.mime, image.etag, image.failure) == ("success", "image/jpeg", '"v1"', None)
    assert f"User-Agent: mmdata/{__version__} ({NO_CONTACT})\r\n" in web.requests["/jpg/5"]
    assert "Accept-Encoding: identity\r\n" in web.requests["/jpg/5"]
    assert f"Host: 127.0.0.1:{web.port}\r\n" in web.requests["/jpg/5"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/drip", "deadline"),
        ("/trickle", "deadline"),
        ("/silent", "timeout"),
        ("/liar", "too_large"),
        ("/endless", "too_large"),
        ("/chunks", "too_large"),
        ("/header-flood", "too_large"),
        ("/reset", "connection_reset"),
        ("/short", "truncated"),
        ("/garbage", "bad_response"),
        ("/gzip", "truncated"),
        ("/hops/11", "too_many_redirects"),
        ("/hops/10", "success"),
        ("/status/404", "http_404"),
        ("/status/410", "http_410"),
        ("/status/503", "http_503"),
    ],
)
def test_each_misbehaviour_has_its_own_error_class(web, settings, path, error):
    started = time.monotonic()
    image = fetch_image(web.url(path), settings(max_bytes=1_000_000))
    assert (image.failure.error if image.failure else image.status) == error
    assert time.monotonic() - started < 5


def test_an_error_page_gives_its_status_whatever_length_it_claims(web, settings):
    web.files["/long404"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 999999999\r\nX-Robots-Tag: noai\r\n\r\n"
    assert outcome(web.url("/long404"), settings()) == "http_404"


def test_the_connection_goes_to_the_address_that_was_checked(settings):
    """DNS rebinding: the name's first answer may be contacted, every later one is somebody's private server."""
    looked_up = []

    def rebinding(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.2"] if len(looked_up) == 1 else ["127.0.0.1"]

    with HostileServer("127.0.0.2") as allowed:
        download = settings(allow_hosts=["127.0.0.2/32"])
        guard = Guard(download, resolve=rebinding)
        install(guard)
        url = allowed.url("/jpg/1", host="rebind.example")
        assert outcome(url, download) == "success"
        assert allowed.requests["/jpg/1"].count("Host: rebind.example") == 1
        assert looked_up == ["rebind.example"]
        guard._dns_cache.clear()  # as after a minute
        assert outcome(url, download) == "private_address"
        assert allowed.hits["/jpg/1"] == 1


def test_a_name_that_cannot_be_resolved_is_a_final_failure(settings):
    image = fetch_image("http://" + "a" * 300 + ".example/", settings())
    assert image.failure is not None
    assert (image.failure.error, image.failure.may_pass) == ("dns", False)


def test_names_and_networks_can_be_allowed(settings, web):
    for allow in (["inside.example"], ["127.0.0.1"], ["127.0.0.0/8"]):
        download = settings(allow_hosts=allow)
        install(Guard(download, resolve=lambda host, port: ["127.0.0.1"]))
        assert outcome(web.url("/jpg/1", host="inside.example"), download) == "success"
    assert outcome(web.url("/jpg/1", host="other.example"), settings(allow_hosts=["inside.example"])) != "success"


def test_a_resolver_that_hangs_does_not_hang_the_fetch(settings):
    download = settings()
    released = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        released.wait(20)
        return ["127.0.0.1"]

    install(Guard(download, resolve=hanging))
    started = time.monotonic()
    image = fetch_image("http://slow-dns.example/x.jpg", download)
    released.set()
    assert image.failure is not None
    assert (image.failure.error, image.failure.may_pass) == ("dns", True)
    assert time.monotonic() - started < 3


def test_busy_servers_are_retried_after_the_time_that_they_ask_for(web, settings):
    patient = settings(retries=2, deadline_s=8)
    assert outcome(web.url("/busy/a?after=0"), patient) == "success"
    assert web.hits["/busy/a"] == 2
    started = time.monotonic()
    image = fetch_image(web.url("/busy/b?after=3600"), patient)
    assert time.monotonic() - started < 3, "an hour is for the ledger, not for a sleep"
    assert image.failure is not None
    assert (image.failure.error, image.failure.retry_after_s) == ("http_429", 3600)


def test_only_failures_that_may_pass_are_retried(web, settings):
    patient = settings(retries=1, deadline_s=5)
    for path, tries in {
        "/status/503": 2,
        "/status/404": 1,
        "/status/410": 1,
        "/reset": 2,
        "/tagged/?tag=noai": 1,
    }.items():
        fetch_image(web.url(path), patient)
        assert web.hits[path.partition("?")[0]] == tries, path


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("tag=noai", "robots"),
        ("tag=NoImageAI", "robots"),
        ("tag=nofollow&tag=noindex", "robots"),
        ("tag=mmdata:%20noindex", "robots"),
        ("tag=otherbot:%20noindex", "success"),
        ("tag=otherbot:%20noindex,%20mmdata:%20noai", "robots"),
        ("tag=max-image-preview:%20large,%20noimageindex", "robots"),
        ("tag=all", "success"),
        ("tag=none", "robots"),
    ],
)
def test_x_robots_tag_is_honoured_in_all_its_forms(web, settings, query, error):
    assert outcome(web.url(f"/tagged/?{query}"), settings()) == error


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"TDM_Reservation": "1"}, "TDM-Reservation: 1"),
        (
            {"tdm_reservation": " 1 ", "tdm_policy": "https://a.example/p.json"},
            "TDM-Reservation: 1, TDM-Policy: https://a.example/p.json",
        ),
        ({"TDM_Reservation": "0"}, None),
        ({"TDM_Policy": "https://a.example/p.json"}, None),
    ],
)
def test_a_reservation_of_text_and_data_mining_is_honoured(web, settings, headers, detail):
    web.files["/x"] = answer(jpeg(1), **headers)
    failure = fetch_image(web.url("/x"), settings()).failure
    assert (failure and (failure.error, failure.status, failure.detail)) == (detail and ("robots", "refused", detail))
    assert outcome(web.url("/x"), settings(respect_robots=False)) == "success"


def test_x_robots_tag_can_be_ignored(web, settings):
    assert outcome(web.url("/tagged/?tag=noai"), settings(respect_robots=False)) == "success"


def test_other_threads_of_the_process_keep_urllib_as_it_was(web, settings):
    settings(allow_hosts=[])
    with urllib.request.urlopen(web.url("/jpg/1"), timeout=5) as response:
        assert response.read() == jpeg(1)


def test_failed_fetches_leave_no_connection_open(web, settings):
    download = settings()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/status/404", "/tagged/?tag=noai", "/liar", "/reset", "/to/?url=http://10.0.0.1/") * 10:
        fetch_image(web.url(path), download)
    time.sleep(0.2)  # the server's side closes in its own threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_tls_verifies_the_name_though_it_connects_to_an_address(settings, certificates, monkeypatch):
    both, authority = certificates
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with HostileServer(certificate=str(both)) as server:
        download = settings(timeout_s=3, deadline_s=4)
        install(Guard(download, resolve=lambda host, port: ["127.0.0.1"]))
        assert outcome(server.url("/jpg/1", host="pictures.example"), download) == "success"
        assert outcome(server.url("/jpg/1", host="elsewhere.example"), download) == "tls_certificate"
        assert outcome(server.url("/drip", host="pictures.example"), settings_of(download, 1.0)) == "deadline"
        assert outcome(server.url("/endless", host="pictures.example"), settings_of(download, 4.0)) == "too_large"


def settings_of(download: Download, deadline_s: float) -> Download:
    return download.model_copy(update={"deadline_s": deadline_s, "max_bytes": 1_000_000})


def test_an_unknown_certificate_is_refused(settings, certificates):
    with HostileServer(certificate=str(certificates[0])) as server:
        download = settings(timeout_s=3, deadline_s=4)
        assert outcome(server.url("/jpg/1"), download) == "tls_certificate"
        assert not server.hits


def test_the_deadline_ends_a_fetch_even_between_two_tries(web, settings):
    download = settings(retries=10, deadline_s=1.5, timeout_s=5)
    started = time.monotonic()
    assert outcome(web.url("/status/503"), download) in {"http_503", "deadline"}  # between two tries, or within one
    assert time.monotonic() - started < 5, "ten tries with their waits take far longer"
    assert web.hits["/status/503"] >= 2
