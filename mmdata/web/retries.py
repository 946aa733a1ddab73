"""When a fetch that failed is tried again: within the same run, and in a later one. Used by all that fetches."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta

from mmdata.config import Download
from mmdata.failure_classes import BLOCKS, HOST_BLOCKED
from mmdata.web.failures import FetchError

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 30 * 86_400.0

_NEVER_FINAL = (BLOCKS - {"http_503"}) | {HOST_BLOCKED}
"""Error classes that say nothing about the URL, however often it was tried. A 503 may be the fault of one URL."""


def backoff_s(url: str, attempt: int, first_s: float = FIRST_WAIT_S) -> float:
    """Seconds to wait before retry number `attempt` (from 1): doubles each time, times 0.5 to 1.5 by hash of the URL.

    The factor spreads the retries of a host's URLs over time; a hash gives it without any random state.
    """
    digest = hashlib.blake2b(f"{url}\x1f{attempt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    spread = 0.5 + int.from_bytes(digest, "little") / 2**64
    return min(first_s * 2 ** (attempt - 1) * spread, MAX_WAIT_S)


def wait_before_retry_s(url: str, failure: FetchError, attempt: int, retries: int, deadline: float) -> float | None:
    """Seconds to wait before a fetch is tried again in this run; None: it is not tried again.

    Args:
        attempt: how many tries have failed.
        retries: how many tries may follow the first.
        deadline: value of `time.monotonic()` at which the fetch ends.
    """
    wait_s = max(backoff_s(url, attempt), failure.retry_after_s or 0.0)
    if not failure.may_pass or attempt > retries or time.monotonic() + wait_s >= deadline:
        return None
    return wait_s


def next_retry_at(
    url: str, failure: FetchError, attempts: int, download: Download, now: datetime | None = None
) -> datetime | None:
    """When a later run may fetch a failed URL again, in UTC to the millisecond.

    None: never, because the failure is final or `download.max_attempts` is reached.
    """
    if not failure.may_pass or (attempts >= download.max_attempts and failure.error not in _NEVER_FINAL):
        return None
    # a pause of the host says how long it takes
    first_s = 0.0 if failure.error == HOST_BLOCKED else download.retry_after_s
    wait_s = max(backoff_s(url, attempts, first_s), failure.retry_after_s or 0.0)
    return to_milliseconds((now or datetime.now(UTC)) + timedelta(seconds=min(wait_s, MAX_WAIT_S)))


def to_milliseconds(moment: datetime) -> datetime:
    """A time cut to whole milliseconds, the resolution of the media table."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
