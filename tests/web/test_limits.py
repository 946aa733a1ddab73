"""The limits of a fetch: deadline, idle time and bytes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmdata.config import Download
from mmdata.web.failures import FetchError
from mmdata.web.limits import MAX_HEADER_BYTES, active_fetch, current_fetch, fetching


def test_the_deadline_of_one_fetch_is_not_that_of_the_next(settings):
    download = settings(deadline_s=0.1)
    with fetching(download):
        time.sleep(0.15)
    with fetching(download) as second:
        assert second.wait_limit_s() > 0.05


def test_bytes_over_the_limit_end_the_fetch() -> None:
    with fetching(Download(max_bytes=10)) as fetch:
        fetch.count_bytes(MAX_HEADER_BYTES + 10)
        with pytest.raises(FetchError, match="too_large"):
            fetch.count_bytes(1)


def test_a_wait_is_limited_by_idle_time_and_by_the_deadline() -> None:
    with fetching(Download(timeout_s=3, deadline_s=60)) as fetch:
        assert fetch.wait_limit_s() == 3
        fetch.deadline = time.monotonic() + 1
        assert 0 < fetch.wait_limit_s() <= 1
        fetch.deadline = time.monotonic() - 1
        with pytest.raises(FetchError, match="deadline"):
            fetch.wait_limit_s()


def test_a_thread_has_its_own_fetch_and_outside_of_one_there_is_none() -> None:
    assert active_fetch() is None
    with pytest.raises(FetchError, match="outside of"):
        current_fetch()
    with fetching(Download()) as fetch, ThreadPoolExecutor(1) as pool:
        assert current_fetch() is fetch
        assert pool.submit(active_fetch).result() is None
