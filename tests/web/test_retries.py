"""When a failed URL is due again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mmdata.config import Download
from mmdata.web.failures import FetchError
from mmdata.web.retries import MAX_WAIT_S, backoff_s, next_retry_at

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSING = FetchError("timeout", "", may_pass=True)


def test_waits_double_times_a_factor_of_0_5_to_1_5():
    for attempt in range(1, 8):
        waits = [backoff_s(f"http://a/{number}", attempt, 10) for number in range(200)]
        middle = 10 * 2 ** (attempt - 1)
        assert min(waits) >= 0.5 * middle
        assert max(waits) <= 1.5 * middle
        assert max(waits) - min(waits) > 0.8 * middle, "they come back together"


def test_waits_need_no_random_state():
    assert backoff_s("http://a/1", 3) == backoff_s("http://a/1", 3)
    assert backoff_s("http://a/1", 3) != backoff_s("http://a/2", 3)


def test_waits_have_a_maximum():
    assert backoff_s("http://a/1", 400, 86_400) == MAX_WAIT_S
    huge = FetchError("http_429", "", may_pass=True, retry_after_s=1e12)
    due = next_retry_at("http://a/1", huge, 1, Download(), NOW)
    assert due == NOW + timedelta(seconds=MAX_WAIT_S)


def test_final_failures_and_those_tried_too_often_are_never_due():
    assert next_retry_at("u", FetchError("http_404", ""), 1, Download(), NOW) is None
    assert next_retry_at("u", PASSING, 5, Download(max_attempts=5), NOW) is None
    assert next_retry_at("u", PASSING, 4, Download(max_attempts=5), NOW) is not None


def test_the_wait_is_at_least_what_the_server_asks_for():
    failure = FetchError("http_503", "", may_pass=True, retry_after_s=500_000)
    assert next_retry_at("u", failure, 1, Download(), NOW) == NOW + timedelta(seconds=500_000)
    soon = next_retry_at("u", FetchError("http_503", "", True, 1.0), 1, Download(retry_after_s=1000), NOW)
    assert soon is not None
    assert soon >= NOW + timedelta(seconds=500)
