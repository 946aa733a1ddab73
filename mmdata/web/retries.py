"""The ledger of failed URLs: how often they were tried, and when they are next."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from mmdata.config import Download
from mmdata.web.failures import FetchError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30 * 86_400.0


def backoff_s(url: str, attempt: int, first_s: float = FIRST_WAIT_S) -> float:
    """Seconds to wait before try number `attempt` (1 is the first retry): doubling, 50% to 150% of it by hash.

    The spread keeps many URLs of one host from coming back together; by hash, so that it needs no random state.
    """
    digest = hashlib.blake2b(f"{url}\x1f{attempt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    spread = 0.5 + int.from_bytes(digest, "little") / 2**64
    return min(first_s * 2 ** (attempt - 1) * spread, LONGEST_WAIT_S)


def next_retry_at(
    url: str, error: FetchError, attempts: int, download: Download, now: datetime | None = None
) -> datetime | None:
    """When a failed URL is due again, in UTC to the millisecond; None: never, it is final or was tried often enough."""
    if not error.may_pass or attempts >= download.max_attempts:
        return None
    wait_s = max(backoff_s(url, attempts, download.retry_after_s), error.retry_after_s or 0.0)
    due = (now or datetime.now(UTC)) + timedelta(seconds=min(wait_s, LONGEST_WAIT_S))
    return due.replace(microsecond=due.microsecond // 1000 * 1000)
