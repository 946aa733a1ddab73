"""Fetching with many threads: fair to hosts, fair to the consumer, and able to stop."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from mmdata.urls import host_and_port
from mmdata.web.failures import FetchError
from mmdata.web.host_pauses import BLOCKS_BEFORE_PAUSE, HostPauses
from mmdata.web.hosts import HostHealth, asked_host, fetch_all
from mmdata.workspace.layout import Workspace

REFUSED, NOT_FOUND = FetchError("connection_refused", ""), FetchError("http_404", "")


def urls(hosts: int, each: int) -> list[str]:
    return [f"http://h{host}/{number}" for host in range(hosts) for number in range(each)]


@pytest.mark.parametrize(
    ("hosts", "each", "threads", "per_host"), [(1, 40, 8, 2), (5, 9, 8, 1), (3, 20, 32, 4), (0, 0, 4, 4)]
)
def test_every_url_is_fetched_once_and_no_host_is_crowded(hosts, each, threads, per_host):
    active: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def fetch(url: str) -> str:
        with lock:
            active[host_and_port(url)] += 1
            most[host_and_port(url)] = max(most[host_and_port(url)], active[host_and_port(url)])
        time.sleep(0.002)
        with lock:
            active[host_and_port(url)] -= 1
        return url.upper()

    got = list(fetch_all(urls(hosts, each), fetch, threads, per_host))
    assert sorted(url for url, _ in got) == sorted(urls(hosts, each))
    assert all(result == url.upper() for url, result in got)
    assert all(count <= per_host for count in most.values())


def test_a_slow_host_does_not_hold_the_others_back():
    release = threading.Event()

    def fetch(url: str) -> str:
        if host_and_port(url) == "h0":
            release.wait(10)
        return url

    fetched = []
    for url, _ in fetch_all(urls(4, 20), fetch, threads=8, per_host=4):
        fetched.append(url)
        if len(fetched) == 60:
            assert not any(host_and_port(url) == "h0" for url in fetched)
            release.set()
    assert len(fetched) == 80


def test_an_error_reaches_the_consumer():
    def fetch(url: str) -> str:
        raise RuntimeError(f"broken {url}")

    with pytest.raises(RuntimeError, match="broken"):
        list(fetch_all(urls(2, 3), fetch, 4, 4))


def test_an_interrupted_consumer_leaves_no_thread_behind():
    before = threading.active_count()
    fetching = fetch_all(urls(3, 200), lambda url: url, threads=8, per_host=8)
    next(fetching)
    fetching.close()
    for _ in range(60):
        if threading.active_count() <= before:
            break
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_a_slow_consumer_slows_the_fetching_threads_down():
    done = []
    fetching = fetch_all(urls(1, 100), done.append, threads=2, per_host=2)
    next(fetching)
    time.sleep(0.1)
    assert len(done) <= 8, "results pile up in memory"
    assert len(list(fetching)) == 99


def test_a_host_is_down_after_failures_in_a_row_and_up_after_any_answer():
    health = HostHealth(limit=3)
    for fault in (REFUSED, REFUSED, None, REFUSED, NOT_FOUND, REFUSED, REFUSED):
        health.record("http://a/1", fault)
    assert health.down_error("http://a/2") is None
    health.record("http://a/3", REFUSED)
    assert health.down_error("http://a/4") is not None
    assert health.down_error("http://a:81/4") is None


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://A.example:80/x", "a.example:80"), ("http://u:p@h/x", "h"), ("nonsense", ""), ("http://[x", "")],
)
def test_hosts_are_counted_by_name_and_port(url, host):
    assert host_and_port(url) == host


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.youtube.com/watch?v=x", "youtube.com"),
        ("https://youtu.be/x", "youtube.com"),
        ("https://m.youtube.com/x", "youtube.com"),
        ("http://A.example:81/x", "a.example:81"),
    ],
)
def test_a_site_blocks_as_one_under_all_its_names(url, host):
    assert asked_host(url) == host


def test_a_host_that_blocks_is_not_asked(tmp_path):
    health = HostHealth(32, HostPauses(Workspace(str(tmp_path)), 60))
    for number in range(BLOCKS_BEFORE_PAUSE):
        url = ("https://youtu.be/{}", "https://www.youtube.com/watch?v={}")[number % 2].format(number)
        assert health.down_error(url) is None
        health.record(url, FetchError("site_blocked", "", may_pass=True))
    assert health.down_error("https://m.youtube.com/x").error == "host_blocked"
