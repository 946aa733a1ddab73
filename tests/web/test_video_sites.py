"""yt-dlp behind the guard: its generic extractor on pages of a loopback server. No real site is asked."""

from __future__ import annotations

import hashlib
import socket

import numpy as np
import pytest

from mmdata.config import Clips, Download
from mmdata.web.video_sites import fetch_from_site, is_site
from tests.support.film_server import Film, FilmServer
from tests.support.hostile_server import HostileServer
from tests.support.made_videos import make

pytest.importorskip("yt_dlp")


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> bytes:
    return make(tmp_path_factory.mktemp("sites") / "film.mp4", seconds=2.0).read_bytes()


@pytest.fixture
def films(film):
    with FilmServer() as server:
        server.films = {"/film.mp4": Film(film), "/page": page("/film.mp4")}
        yield server


def page(source: str, mime: str = "video/mp4") -> Film:
    text = f'<html><head><title>A film</title></head><body><video src="{source}" type="{mime}"></video></body></html>'
    return Film(text.encode(), mime="text/html", etag=None)


@pytest.fixture
def fetch(films, settings, tmp_path):
    def run(path: str, clips: Clips | None = None, **download):
        target = tmp_path / "target"
        given = {"timeout_s": 3, **download}
        fetched = fetch_from_site(films.url(path), target, settings(**given), clips or Clips(deadline_s=15))
        return fetched, target

    return run


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.youtube.com/watch?v=x", True),
        ("https://youtu.be/x", True),
        ("https://M.YOUTUBE.com./watch?v=x", True),
        ("https://player.vimeo.com/video/1", True),
        ("https://youtube.com.example.org/x.mp4", False),
        ("https://notyoutube.com/x.mp4", False),
        ("https://mirror.example/youtube.com/x.mp4", False),
        ("http://[bad/x", False),
    ],
)
def test_sites_are_recognised_by_their_domain(url, expected):
    assert is_site(url) == expected


def test_the_video_of_a_page_is_fetched_with_our_user_agent(films, fetch, film):
    fetched, target = fetch("/page")
    assert fetched.failure is None, fetched.failure
    assert target.read_bytes() == film
    assert (fetched.sha256, fetched.size_bytes, fetched.mime) == (
        hashlib.sha256(film).hexdigest(),
        len(film),
        "video/mp4",
    )
    assert {request.agent for request in films.requests} == {Download().agent}


def test_every_connection_is_made_by_the_guard(films, fetch, monkeypatch):
    """No socket is opened but by the guard, whatever yt-dlp would do by itself."""

    def refuse(*_, **__):
        raise AssertionError("a connection past the guard")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("yt_dlp.networking._helper.create_connection", refuse)
    monkeypatch.setattr("yt_dlp.networking._urllib.create_connection", refuse)
    assert fetch("/page")[0].failure is None


def test_a_page_cannot_refer_to_a_private_address(films, fetch):
    with HostileServer("127.0.0.2") as other:
        films.films["/evil"] = page(other.url("/jpg/1"))
        films.films["/moved.mp4"] = Film(b"")
        fetched, _ = fetch("/evil", allow_hosts=["127.0.0.1/32"])
        assert fetched.failure.error == "private_address"
        assert not other.hits
        fetched, _ = fetch("/page", allow_hosts=[])
        assert (fetched.failure.error, fetched.failure.status) == ("private_address", "refused")


def test_a_playlist_cannot_lead_to_files_or_private_addresses(films, fetch):
    with HostileServer("127.0.0.2") as other:
        entries = {
            films.url("/film.mp4"): None,
            other.url("/jpg/1"): "private_address",
            "file:///etc/passwd": "site_failed",
            "ftp://127.0.0.1/x": "site_failed",
        }
        for number, (entry, error) in enumerate(entries.items()):
            text = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{entry}\n#EXT-X-ENDLIST\n"
            mime = "application/vnd.apple.mpegurl"
            films.films[f"/list{number}.m3u8"] = Film(text.encode(), mime=mime)
            films.films[f"/evil{number}"] = page(f"/list{number}.m3u8", mime)
            fetched, target = fetch(f"/evil{number}", allow_hosts=["127.0.0.1/32"])
            assert (fetched.failure.error if fetched.failure else None) == error
            assert not target.exists() or b"root:" not in target.read_bytes()
        assert not other.hits


def test_the_limits_of_size_and_time_hold(films, fetch):
    films.films["/large.mp4"] = Film(np.random.default_rng(0).bytes(3_000_000))
    films.films["/large"] = page("/large.mp4")
    fetched, _ = fetch("/large", Clips(deadline_s=15, max_bytes=1_000_000))
    assert fetched.failure.error == "too_large"
    with HostileServer() as slow:
        films.films["/slow"] = page(slow.url("/drip"))
        fetched, _ = fetch("/slow", Clips(deadline_s=2))
        assert (fetched.failure.error, fetched.failure.may_pass) == ("deadline", True)


def test_a_page_without_a_video_is_a_final_failure(films, fetch):
    films.films["/words"] = Film(b"<html><body>words</body></html>", mime="text/html")
    fetched, _ = fetch("/words")
    assert (fetched.failure.error, fetched.failure.may_pass) == ("site_failed", False)
    fetched, _ = fetch("/gone")
    assert (fetched.failure.error, fetched.failure.may_pass) == ("site_removed", False)
    assert "404" in fetched.failure.detail


def test_a_page_of_several_videos_is_refused_and_none_of_them_is_fetched(films, fetch):
    videos = "".join(f'<p><video src="/film.mp4?{number}" type="video/mp4"></video></p>' for number in range(3))
    films.films["/several"] = Film(f"<html><body>{videos}</body></html>".encode(), mime="text/html", etag=None)
    fetched, target = fetch("/several")
    assert (fetched.failure.error, fetched.failure.status) == ("playlist", "refused")
    assert "Remedy: list the page of each video" in fetched.failure.detail
    assert films.count("/film.mp4") == 0
    assert not target.exists()


def test_a_site_that_throttles_or_fails_for_a_while_is_due_again(films, fetch):
    for path, status, error in (("/busy", "429", "site_blocked"), ("/down", "503", "site_later")):
        films.films[path] = Film(b"", status=int(status), headers={"Retry-After": "90"})
        fetched, _ = fetch(path)
        assert (fetched.failure.error, fetched.failure.may_pass) == (error, True)
    assert fetch("/busy")[0].failure.retry_after_s == 90
