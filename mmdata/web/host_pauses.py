"""Leaves a host alone that blocks us: after some blocks for a while, then one URL finds out whether it still does."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mmdata.failure_classes import BLOCKS, HOST_BLOCKED, HOST_FAULTS
from mmdata.observe import logs
from mmdata.web.failures import FetchError
from mmdata.web.retries import MAX_WAIT_S
from mmdata.workspace.layout import Workspace
from mmdata.workspace.paused_hosts import Pause, end_pause, read_pauses, write_pause

_log = logs.logger(__name__)

BLOCKS_BEFORE_PAUSE = 10
"""A host is left alone after so many blocks; each other answer takes one back, so that a few among many do no harm."""

MAX_PAUSE_S = 86_400.0
"""The longest pause, unless the server asks for more (Retry-After)."""

_NOT_SENT = frozenset({"bad_scheme", "bad_url", "userinfo", "bad_port", "private_address", "site", "unexpected"})
"""Error classes of fetches that may have sent nothing to the host, so that they say nothing about it."""


@dataclass(slots=True)
class _Host:
    blocks: int = 0
    retry_after_s: float = 0.0
    pause: Pause | None = None
    probe: str | None = None


class HostPauses:
    """The pauses of the hosts of a workspace; one object for the threads of a slice.

    Args:
        first_pause_s: of a host that blocks for the first time; doubles with each pause in a row.
    """

    def __init__(self, workspace: Workspace, first_pause_s: float) -> None:
        self._workspace, self._first_pause_s = workspace, first_pause_s
        self._hosts = {host: _Host(pause=pause) for host, pause in read_pauses(workspace).items()}
        self._changed = threading.Condition()

    def block_error(self, host: str, url: str) -> FetchError | None:
        """Why a URL is not fetched now: its host is left alone. None: fetch it, and `record` how that ended.

        After a pause the first URL is let through. The other threads wait for its result.
        """
        with self._changed:
            while (paused := self._hosts.get(host)) is not None and (pause := paused.pause) is not None:
                now = datetime.now(UTC)
                if not pause.is_over(now):
                    wait_s = (datetime.fromisoformat(pause.until) - now).total_seconds()
                    detail = f"{host} blocks us ({pause.reason}) and is left alone until {pause.until}"
                    return FetchError(HOST_BLOCKED, detail, may_pass=True, retry_after_s=wait_s)
                if paused.probe is None:
                    paused.probe = url
                    return None
                self._changed.wait()
            return None

    def record(self, host: str, url: str, failure: FetchError | None) -> None:
        """Count how a fetch ended."""
        block = failure if failure is not None and failure.error in BLOCKS else None
        with self._changed:
            if host not in self._hosts and block is None:
                return
            known = self._hosts.setdefault(host, _Host())
            if known.pause is not None:
                self._record_probe(host, known, url, failure)
            elif block is None:
                known.blocks = max(0, known.blocks - 1)
            else:
                known.blocks += 1
                known.retry_after_s = max(known.retry_after_s, block.retry_after_s or 0.0)
                if known.blocks >= BLOCKS_BEFORE_PAUSE:
                    self._pause(host, known, block.error)

    def _record_probe(self, host: str, known: _Host, url: str, failure: FetchError | None) -> None:
        if url != known.probe:
            return  # sent before the pause began
        known.probe = None
        if failure is None or failure.error not in BLOCKS | HOST_FAULTS | _NOT_SENT:
            self._hosts[host] = _Host()
            end_pause(self._workspace, host)
            _log.info("host answers again", host=host)
        elif failure.error not in _NOT_SENT:
            known.retry_after_s = failure.retry_after_s or 0.0
            self._pause(host, known, failure.error)
        self._changed.notify_all()

    def _pause(self, host: str, known: _Host, reason: str) -> None:
        times = known.pause.times + 1 if known.pause is not None else 1
        pause_s = min(self._first_pause_s * 2.0 ** min(times - 1, 30), max(MAX_PAUSE_S, self._first_pause_s))
        pause_s = min(max(pause_s, known.retry_after_s), MAX_WAIT_S)
        now = datetime.now(UTC)
        since = known.pause.since if known.pause is not None else now.isoformat(timespec="seconds")
        until = (now + timedelta(seconds=pause_s)).isoformat(timespec="milliseconds")
        pause = Pause(host, reason, since, until, times)
        self._hosts[host] = _Host(pause=pause)
        write_pause(self._workspace, pause)
        _log.warning("host blocks us and is left alone", host=host, reason=reason, until=until, tries=times)
