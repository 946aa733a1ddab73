"""Large files from a server that breaks off or changes its file, and files that must not be fetched at all."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest

from mmdata.config import Clips, Download
from mmdata.web import retries
from mmdata.web.large_files import fetch_file
from tests.support.film_server import Film, FilmServer

BODY = np.random.default_rng(1).bytes(1_500_000)
OTHER = np.random.default_rng(2).bytes(1_200_000)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "backoff_s", lambda url, attempt, first_s=0.0: first_s or 0.01)


@pytest.fixture
def films():
    with FilmServer() as server:
        yield server


@pytest.fixture
def fetch(films, settings, tmp_path):
    def run(film: Film, retries: int = 2, **clips):
        films.films["/f.mp4"] = film
        given = {"deadline_s": 5, "max_bytes": 2_000_000, **clips}
        target = tmp_path / "target"
        return fetch_file(films.url("/f.mp4"), target, settings(retries=retries), Clips(**given)), target

    return run


def assert_whole(fetched, target, body=BODY):
    assert fetched.failure is None, fetched.failure
    assert target.read_bytes() == body
    assert (fetched.sha256, fetched.size_bytes) == (hashlib.sha256(body).hexdigest(), len(body))


def test_a_file_comes_whole_with_its_hash_type_and_etag(films, fetch):
    fetched, target = fetch(Film(BODY))
    assert_whole(fetched, target)
    assert (fetched.mime, fetched.etag) == ("video/mp4", '"v1"')
    assert films.requests[0].agent == Download().agent


def test_a_broken_download_continues_where_it_broke(films, fetch):
    fetched, target = fetch(Film(BODY, breaks=[600_000, 400_000]))
    assert_whole(fetched, target)
    assert [(request.range, request.if_range, request.status) for request in films.requests] == [
        (None, None, 200),
        ("bytes=600000-", '"v1"', 206),
        ("bytes=1000000-", '"v1"', 206),
    ]


def test_without_an_etag_the_date_identifies_the_file(films, fetch):
    date = "Mon, 02 Mar 2026 10:00:00 GMT"
    fetched, target = fetch(Film(BODY, etag=None, modified=date, breaks=[600_000]))
    assert_whole(fetched, target)
    assert (films.requests[1].if_range, films.requests[1].status) == (date, 206)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_the_file_is_fetched_from_its_beginning(films, fetch, etag):
    fetched, target = fetch(Film(BODY, etag=etag, breaks=[600_000]))
    assert_whole(fetched, target)
    assert [request.range for request in films.requests] == [None, None]


def test_a_server_that_ignores_ranges_doubles_no_bytes(films, fetch):
    fetched, target = fetch(Film(BODY, ranges=False, breaks=[600_000]))
    assert_whole(fetched, target)
    assert [request.status for request in films.requests] == [200, 200]


def test_a_file_that_has_changed_is_fetched_from_its_beginning(films, fetch):
    def change(film, number):
        if number == 1:
            film.body, film.etag = OTHER, '"v2"'

    fetched, target = fetch(Film(BODY, breaks=[600_000], before=change))
    assert_whole(fetched, target, OTHER)
    assert fetched.etag == '"v2"'


def test_a_file_that_became_shorter_under_the_same_name_is_fetched_anew(films, fetch):
    def shrink(film, number):
        if number == 1:
            film.body = BODY[:500_000]

    fetched, target = fetch(Film(BODY, breaks=[600_000], before=shrink))
    assert [request.status for request in films.requests] == [200, 416, 200]
    assert_whole(fetched, target, BODY[:500_000])


def test_after_a_refused_range_the_last_failure_is_reported(films, fetch):
    def shrink(film, number):
        if number == 1:
            film.body = BODY[:500_000]

    fetched, _ = fetch(Film(BODY, breaks=[600_000, 0, 0, 0, 0], before=shrink), retries=1)
    assert [request.status for request in films.requests][:3] == [200, 416, 200]
    assert fetched.failure.error == "truncated"


def test_a_download_without_progress_is_given_up_and_may_be_retried(films, fetch):
    fetched, _ = fetch(Film(BODY, breaks=[0] * 9), retries=2)
    assert (fetched.failure.error, fetched.failure.may_pass) == ("truncated", True)
    assert films.count("/f.mp4") == 3


def test_a_download_with_progress_may_break_more_often_than_retries(films, fetch):
    fetched, target = fetch(Film(BODY, breaks=[200_000] * 6), retries=1)
    assert_whole(fetched, target)
    assert films.count("/f.mp4") == 7


@pytest.mark.parametrize(
    ("film", "clips", "error"),
    [
        (Film(BODY), {"max_bytes": 1_000_000}, "too_large"),
        (Film(b""), {}, "empty"),
        (Film(BODY, headers={"X-Robots-Tag": "noai"}), {}, "robots"),
        (Film(gzip.compress(BODY)[:-9], headers={"Content-Encoding": "gzip"}), {}, "truncated"),
        (Film(gzip.compress(bytes(3_000_000)), headers={"Content-Encoding": "gzip"}), {}, "too_large"),
    ],
)
def test_unwanted_files_have_an_error_class(fetch, film, clips, error):
    fetched, _ = fetch(film, **clips)
    assert fetched.failure.error == error
    assert fetched.sha256 is None


def test_the_limits_of_pictures_do_not_apply_to_large_files(films, settings, tmp_path):
    films.films["/f.mp4"] = Film(BODY)
    picture = settings(max_bytes=1000)
    assert fetch_file(films.url("/f.mp4"), tmp_path / "t", picture, Clips()).failure is None


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/endless", "too_large"),
        ("/drip", "deadline"),
        ("/silent", "timeout"),
        ("/status/404", "http_404"),
        ("/to/?url=file:///etc/passwd", "bad_scheme"),
        ("/to/?url=http://10.0.0.1/x.mp4", "private_address"),
        ("/garbage", "bad_response"),
    ],
)
def test_large_files_are_fetched_under_the_guard(web, settings, tmp_path, path, error):
    clips = Clips(deadline_s=1, max_bytes=1_000_000)
    fetched = fetch_file(web.url(path), tmp_path / "t", settings(), clips)
    assert fetched.failure.error == error


def test_a_private_host_is_not_contacted(films, settings, tmp_path):
    download = settings(allow_hosts=[])
    fetched = fetch_file(films.url("/f.mp4"), tmp_path / "t", download, Clips())
    assert (fetched.failure.error, fetched.failure.status, films.requests) == ("private_address", "refused", [])


@pytest.mark.parametrize(("body", "encoding"), [(gzip.compress(BODY), "gzip"), (BODY, "gzip"), (BODY, "aws-chunked")])
def test_an_encoded_file_is_stored_decoded(fetch, body, encoding):
    fetched, target = fetch(Film(body, headers={"Content-Encoding": encoding}))
    assert_whole(fetched, target)


def test_an_encoded_file_that_breaks_is_fetched_from_its_beginning(films, fetch):
    """A range would be one of the encoded bytes."""
    fetched, target = fetch(Film(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}, breaks=[600_000]))
    assert_whole(fetched, target)
    assert [request.range for request in films.requests] == [None, None]


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HEAD + b"Content-Length: 1007\r\n\r\n" + b"x" * 1000, None),
        (HEAD + b"Content-Length: 9000\r\n\r\n" + b"x" * 1000, "truncated"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n", None),
        (HEAD + b"Content-Length: 1007\r\n\r\n", "truncated"),
        (HEAD + b"Content-Length: 4, 5\r\n\r\n" + b"x" * 1000, None),
        (HEAD + b"Content-Length: \xb2\r\n\r\n" + b"x" * 1000, None),
        (HEAD + b"Retry-After: x\r\nETag: " + b"e" * 5000 + b"\r\n\r\n" + b"x" * 1000, None),
    ],
)
def test_a_file_that_ends_at_the_same_byte_twice_is_whole(web, settings, tmp_path, answer, error):
    web.files["/f"] = answer
    fetched = fetch_file(web.url("/f"), tmp_path / "f", settings(retries=2), Clips(deadline_s=5))
    assert (fetched.failure and fetched.failure.error) == error
    if error is None:
        assert (tmp_path / "f").read_bytes() == b"x" * 1000
        assert web.hits["/f"] <= 2
        assert fetched.etag is None


def test_a_file_that_breaks_in_another_place_each_time_is_not_taken_for_whole(fetch):
    fetched, _ = fetch(Film(BODY, etag=None, breaks=[600_000, 600_001, 500_000, 400_000]))
    assert fetched.failure.error == "truncated"
