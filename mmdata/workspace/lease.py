"""Leases: who works on a part or on the release, so that two builds of one workspace do not disturb each other.

A lease is a small JSON object `leases/<name>.json`. It expires unless its holder renews it, so a dead holder blocks
others for two minutes at most, and not at all if it died on this machine.

A holder that was stopped and wakes up after its lease has run out changes nothing any more: each change happens inside
`Lease.hold`, which mmdata.storage.atomic enters through the fence. On a disk, the lease cannot change hands during the
change. On an object store, the lease is read just before; a request that is under way at that moment still arrives.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.observe import logs, metrics
from mmdata.storage.fence import fence
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease_store import (
    Holder,
    Store,
    lease_path,
    read_holder,
    start_of_process,
    store_of,
    unreleased_tokens,
)

_log = logs.logger(__name__)

EXPIRY_S = 120.0
POLL_S = 1.0


class LeaseHeld(UserError):
    """Another process holds the lease, and has not released it while we waited."""


class LeaseLost(DataError):
    """The lease is lost: it expired, or another process has taken it over."""


class Lease:
    """A lease that this process holds and renews in the background. See `leased`."""

    def __init__(self, store: Store, holder: Holder, expiry_s: float) -> None:
        self.holder = holder
        self._store, self._expiry_s = store, expiry_s
        self._ended = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._renew, name=f"lease {store.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLost if the background renewal has found that the lease is lost."""
        if self._lost is not None:
            raise LeaseLost(self.lost_text())

    def lost_text(self) -> str:
        """What a person reads about a lease that is lost."""
        return f"the lease {self._store.name} is lost: {self._lost}. Remedy: run the same command again."

    def is_lost(self) -> bool:
        """Whether somebody else has the lease now. False if the store does not answer."""
        try:
            with self.hold():
                return False
        except LeaseLost:
            return True
        except Exception:  # noqa: BLE001 - each client has its own errors; whoever asks has an error of its own to tell
            return False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Open a block for a change that this lease covers.

        Raises:
            LeaseLost: another process has taken the lease over, or it is gone.
            OSError: the store does not answer.
        """
        with self._store.held(self.holder) as current:
            if current is None or current.token != self.holder.token:
                self._lost = f"{current or 'somebody else'} took it over"
                self.check()
            yield

    def end(self) -> None:
        """Release the lease. If the store does not answer, the lease expires by itself."""
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            try:
                self._store.give_back(self.holder)
            except Exception as error:  # noqa: BLE001 - each client has its own errors; the work is done and must not fail
                unreleased_tokens.add(self.holder.token)
                _log.warning("lease could not be released", lease=self._store.name, error=error)

    def _renew(self) -> None:
        good_until = time.monotonic() + self._expiry_s
        while not self._ended.wait(self._expiry_s / 3):
            try:
                current = self._store.renew(self.holder, _later(self._expiry_s))
            except Exception as error:  # noqa: BLE001 - each client has its own errors; the store may come back in time
                _log.warning("lease could not be renewed yet", lease=self._store.name, error=error)
                if time.monotonic() > good_until:
                    self._lost = f"it could not be renewed ({error})"
                    return
                continue
            if current is None or current.token != self.holder.token:
                _log.error("lease is lost", lease=self._store.name, holder=current)
                self._lost = f"{current or 'somebody else'} took it over"
                return
            good_until = time.monotonic() + self._expiry_s


@contextmanager
def leased(
    workspace: Workspace,
    name: str,
    what: str,
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[Holder], None] = lambda holder: None,
    expiry_s: float = EXPIRY_S,
) -> Iterator[Lease]:
    """Hold a lease of a workspace inside the block.

    Args:
        name: `release`, or `part-` and the name of a part.
        what: the work, in words for a person who has to wait.
        wait_s: seconds to wait for another holder.
        on_wait: called once, with the other holder, when the wait begins.

    Raises:
        LeaseHeld: another process still holds the lease after `wait_s`; names it.
        LeaseLost: in place of any error of the block, where another process has taken the lease over in the meantime.
    """
    store = store_of(workspace, name)
    holder = _this_process(what, expiry_s)
    began = time.monotonic()
    deadline = began + wait_s
    has_waited = False
    while (current := store.take(holder)).token != holder.token:
        if time.monotonic() >= deadline:
            raise LeaseHeld(
                f"{workspace.root}: {name} is held by {current}. Remedy: wait until it has ended, or stop it; if it is "
                f"dead already, the lease expires at {current.expires_at}."
            )
        if not has_waited:
            has_waited = True
            _log.warning("waits for a lease", lease=name, holder=current, wait_s=wait_s)
            on_wait(current)
        time.sleep(min(POLL_S, expiry_s / 10))
        holder = _this_process(what, expiry_s)
    if has_waited:
        metrics.waited(time.monotonic() - began)
        _log.info("has the lease", lease=name, seconds=time.monotonic() - began)
    lease = Lease(store, holder, expiry_s)
    try:
        with fence(_covered(workspace, name), lease.hold):
            yield lease
    except Exception as error:
        if not isinstance(error, LeaseLost) and lease.is_lost():  # the next holder removes our drafts as we write them
            raise LeaseLost(f"{lease.lost_text()} What failed then: {error}") from error
        raise
    finally:
        lease.end()


def holder_of(workspace: Workspace, name: str) -> Holder | None:
    """Who holds a lease at this moment; None if nobody does."""
    holder = read_holder(lease_path(workspace, name))
    return None if holder is None or holder.is_gone(datetime.now(UTC)) else holder


def _covered(workspace: Workspace, name: str) -> tuple[UPath, ...]:
    """The paths that only the holder of a lease may change."""
    if name == "release":
        return (
            workspace.catalog_path,
            workspace.draft_path,
            workspace.shards_dir,
            workspace.releases_dir,
            workspace.scores_dir,
        )
    kind, _, part = name.partition("-")
    return (workspace.part_dir(part),) if kind == "part" else ()


def _this_process(what: str, expiry_s: float) -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return Holder(secrets.token_hex(8), socket.gethostname(), pid, start_of_process(pid), what, now, _later(expiry_s))


def _later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
